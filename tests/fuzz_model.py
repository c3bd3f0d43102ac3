"""The reader of model files, to be fuzzed behind its seal. See `scripts/fuzz.py`."""

import contextlib
import tempfile
from pathlib import Path

import onnx
from hostile_models import function
from model_mutants import changed_field, changed_spec, sealed
from mutant_opening import is_sound
from onnx import helper
from toy_model import SPEC, toy_proto

from edgemask.errors import EdgemaskError
from edgemask.inspection import inspect_model
from edgemask.runtimes import read_model, write_model

LONGEST = 4096
MUTATIONS = (changed_field, changed_spec)
TOKENS = ()

_folder = tempfile.TemporaryDirectory(prefix="edgemask-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
_file = Path(_folder.name) / "file"


def run(data: bytes) -> None:
    """Reads a model file, sealed so that the reader gets behind the digest, and describes it."""
    _file.write_bytes(sealed(data))
    with contextlib.suppress(EdgemaskError):
        assert is_sound(read_model(_file))
    with contextlib.suppress(EdgemaskError):
        inspect_model(_file)
    with contextlib.suppress(EdgemaskError):
        inspect_model(_file, target="tensorrt")


def seeds() -> list[bytes]:
    large = toy_proto()
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "body", [], [])
    loop = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    large.functions.append(function("F", loop))
    large.graph.node.append(helper.make_node("F", ["images"], ["unused"], domain="edgemask"))
    large.training_info.add().algorithm.node.append(helper.make_node("Relu", ["x"], ["y"]))
    large.graph.sparse_initializer.add().values.name = "s"
    small = onnx.ModelProto(ir_version=8, producer_name="pytorch")
    files = [small.SerializeToString()]
    for proto in (toy_proto(), large):
        write_model(proto, SPEC, _file)
        files.append(_file.read_bytes())
    return files
