"""The notebook of samples/: stored without outputs, and every cell of it runs."""

import os
import re
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOK = REPOSITORY / "samples" / "quickstart.ipynb"


def test_it_is_stored_without_what_a_run_leaves() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_a_stored_output_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", text="said")]
    nbformat.write(notebook, tmp_path / "kept.ipynb")
    monkeypatch.setitem(globals(), "NOTEBOOK", tmp_path / "kept.ipynb")
    with pytest.raises(AssertionError):
        test_it_is_stored_without_what_a_run_leaves()


def executed(folder: Path, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Runs a notebook as a user would, in a kernel whose working folder is `folder`."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    return client.execute(env=os.environ | environment)


@pytest.mark.soak
def test_every_cell_runs(tmp_path: Path) -> None:
    done = executed(tmp_path, nbformat.read(NOTEBOOK, as_version=4))
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/markdown"} <= kinds
    texts = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert re.search(r"model\.onnx: \d+ operators", texts)
    assert re.search(r"^(ellipse|rectangle|triangle|star|cross) +0\.\d\d ", texts, re.MULTILINE)
    assert "True" in texts.splitlines()  # of `result.passed`
    assert (tmp_path / "out" / "quickstart" / "model.onnx").is_file()


@pytest.mark.soak
def test_a_cell_that_fails_is_seen(tmp_path: Path) -> None:
    exceptions = pytest.importorskip("nbclient.exceptions")
    broken = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("import edgemask\nedgemask.load('absent.onnx')")]
    )
    with pytest.raises(exceptions.CellExecutionError, match=r"cannot read absent\.onnx"):
        executed(tmp_path, broken)
