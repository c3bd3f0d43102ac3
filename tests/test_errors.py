"""The tree of errors is what its page draws, and errors survive a process pool."""

import inspect
import pickle  # noqa: TID251  errors cross the border of a process
import re
import subprocess
import sys

import pytest

from edgemask import errors

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.EdgemaskError)
}
LEAVES = sorted(CLASSES.keys() - {"EdgemaskError"})
DRAWN_LINE = re.compile(r"[├└]── (\w+)(?: \((\w+)\))? +(\d+)   (\S.+)")


def test_drawn_tree_is_the_classes() -> None:
    assert errors.__doc__
    drawn = {match[1]: match for match in DRAWN_LINE.finditer(errors.__doc__)}
    assert sorted(drawn) == LEAVES
    for name, match in drawn.items():
        kind = CLASSES[name]
        builtin = [base.__name__ for base in kind.__bases__ if base is not errors.EdgemaskError]
        assert builtin == ([match[2]] if match[2] else [])
        assert kind.exit_code == int(match[3])
        assert kind.__doc__
        assert kind.__doc__.rstrip(".").lower() == match[4].lower()


def test_base_is_a_fault_of_ours() -> None:
    assert errors.EdgemaskError.exit_code == 70


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("remedy", ["do that", None])
def test_survives_pickling(name: str, remedy: str | None) -> None:
    error = CLASSES[name]("this is wrong: 7", remedy)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is CLASSES[name]
    assert (copy.problem, copy.remedy, str(copy)) == (error.problem, error.remedy, str(error))


def test_message_has_the_remedy_on_its_own_line() -> None:
    assert str(errors.ImageError("a.jpg: cut off", "copy it again")) == "a.jpg: cut off\ncopy it again"
    assert str(errors.ImageError("a.jpg: cut off")) == "a.jpg: cut off"


def test_wrong_use_is_a_value_error() -> None:
    assert issubclass(errors.UsageError, ValueError)


def test_load_without_onnx_names_the_extras() -> None:
    code = "import sys; sys.modules['onnx'] = None; import edgemask; edgemask.load('m.onnx')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DependencyMissing" in ended.stderr
    assert "pip install 'edgemask[cpu]'" in ended.stderr
