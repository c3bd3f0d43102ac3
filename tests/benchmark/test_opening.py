"""Who is to take part, and what becomes of those who cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
from toy_model import SPEC

from edgemask.benchmark.opening import Attempts, FileEntry, ReferenceEntry, entry_of, file_entries
from edgemask.benchmark.pytorch import Reference
from edgemask.errors import (
    DeviceUnavailable,
    EdgemaskError,
    ImageError,
    ModelFileError,
    OutOfMemory,
    UnsupportedModel,
    UsageError,
)
from edgemask.runtimes.options import RuntimeOptions

USUAL = RuntimeOptions()
BLACK = np.zeros((8, 8, 3), np.uint8)


def raising(error: EdgemaskError) -> int:
    raise error


def test_every_model_on_every_device_with_every_precision() -> None:
    entries = file_entries(["a.onnx", Path("b.onnx")], ["cpu", "cuda:1"], ["file", "tf32"], RuntimeOptions(threads=3))
    assert [(entry.path, entry.device, entry.precision) for entry in entries] == [
        (path, device, precision)
        for path in ("a.onnx", "b.onnx")
        for device in ("cpu", "cuda:1")
        for precision in ("file", "tf32")
    ]
    assert {entry.options.threads for entry in entries} == {3}


def test_without_precisions_the_options_have_it() -> None:
    (entry,) = file_entries(["a.onnx"], ["auto"], [], RuntimeOptions(precision="bf16"))
    assert entry.precision == "bf16"


@pytest.mark.parametrize(
    ("models", "devices", "precisions", "options", "words"),
    [
        pytest.param([], ["cpu"], [], USUAL, "nothing to measure", id="no model"),
        pytest.param(["a"], [], [], USUAL, "nothing to measure", id="no device"),
        pytest.param(["a"], ["cpu", "tpu"], [], USUAL, "no device 'tpu'", id="no such device"),
        pytest.param(["a"], ["cpu"], ["int4"], USUAL, "precision: expected .* got 'int4'", id="no such precision"),
        pytest.param(["a"], ["cpu"], ["tf32"], RuntimeOptions(precision="bf16"), "--precision", id="two words"),
    ],
)
def test_what_cannot_be_meant(
    models: list[str], devices: list[str], precisions: list[str], options: RuntimeOptions, words: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){words}"):
        file_entries(models, devices, precisions, options)


@pytest.mark.parametrize("error", [DeviceUnavailable, OutOfMemory, UnsupportedModel])
def test_what_the_machine_cannot_do_is_a_refusal(error: type[EdgemaskError]) -> None:
    attempts = Attempts()
    entry = FileEntry("m/a.onnx", "cuda", USUAL)
    assert attempts.of(entry, lambda: raising(error("no\ndriver", "install\none"))) is None
    assert attempts.of(entry, lambda: 7) == 7
    (refusal,) = attempts.refusals
    assert (refusal.title, refusal.reason) == ("a.onnx on cuda", "no driver: install one")
    assert [type(error) for error in attempts.errors] == [error]


@pytest.mark.parametrize("error", [ModelFileError, ImageError, UsageError])
def test_what_is_wrong_for_all_ends_the_benchmark(error: type[EdgemaskError]) -> None:
    attempts = Attempts()
    with pytest.raises(error):
        attempts.of(FileEntry("a.onnx", "cpu", USUAL), lambda: raising(error("wrong", "mend it")))
    assert attempts.refusals == []


def test_a_precision_that_a_device_lacks_is_a_refusal() -> None:
    attempts = Attempts()
    entry = FileEntry("a.onnx", "cpu", RuntimeOptions(precision="bf16"))
    assert attempts.of(entry, lambda: raising(UsageError("not on cpu"))) is None
    (refusal,) = attempts.refusals
    assert (refusal.title, refusal.reason) == ("a.onnx on cpu, bf16", "not on cpu")


def test_a_job_goes_to_another_process_as_json(tmp_path: Path) -> None:
    options = RuntimeOptions(threads=2, precision="bf16", cache=tmp_path, library={"NUM_STREAMS": "2"})
    entry = FileEntry("a.onnx", "openvino:CPU", options)
    there = entry_of(json.loads(json.dumps(entry.job())), BLACK)
    assert isinstance(there, FileEntry)
    assert (there.path, there.device, there.options.library) == ("a.onnx", "openvino:CPU", {"NUM_STREAMS": "2"})
    assert (there.options.threads, there.options.precision) == (2, "bf16")
    assert there.options.cache == str(tmp_path)


def test_a_job_of_the_pytorch_model() -> None:
    reference = Reference("m.safetensors", None, SPEC.class_names)
    entry = ReferenceEntry("eager", reference, SPEC, "cpu", 2, BLACK)
    there = entry_of(json.loads(json.dumps(entry.job())), BLACK)
    assert isinstance(there, ReferenceEntry)
    assert (there.name, there.spec, there.threads, there.device) == ("eager", SPEC, 2, "torch:cpu")
    assert (there.reference.source, there.reference.class_names) == ("m.safetensors", SPEC.class_names)
    exported = ReferenceEntry("torchvision-onnx", reference, SPEC, "cuda", 2, BLACK)
    assert exported.job() is None
    assert (exported.device, exported.precision) == ("cpu", "fp32")
