"""Model files: written sealed, read back, and refused in words that say what is wrong with them."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError
from hostile_models import call, function
from toy_model import SPEC, toy_proto, write_toy

from edgemask.errors import ModelFileError, OutputError
from edgemask.runtimes import modelfile, read_model, write_model
from edgemask.spec import DIGEST_KEY, SPEC_KEY


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "m.onnx")


def refused(path: Path, message: str = "") -> None:
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert str(path) in caught.value.problem
    assert re.search(message, caught.value.problem), caught.value.problem
    assert caught.value.remedy


def sealed(proto: onnx.ModelProto, metadata: Mapping[str, str] | list[tuple[str, str]], path: Path) -> Path:
    """Writes any metadata, and a true digest in place of the value `DIGEST`: what a stranger can do too."""
    del proto.metadata_props[:]
    for key, value in metadata.items() if isinstance(metadata, Mapping) else metadata:
        proto.metadata_props.add(key=key, value="0" * 64 if value == "DIGEST" else value)
    blank = proto.SerializeToString()
    digest = hashlib.sha256(blank).hexdigest().encode()
    path.write_bytes(blank.replace(b"edgemask.digest\x12\x40" + b"0" * 64, b"edgemask.digest\x12\x40" + digest, 1))
    return path


def test_round_trip_keeps_spec_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    digest = write_model(toy_proto(), SPEC, path)
    model = read_model(path)
    assert (model.path, model.spec, model.digest, model.data) == (path, SPEC, digest, path.read_bytes())
    assert model.proto.graph == toy_proto().graph
    assert read_model(str(path)).spec == SPEC


def test_digest_is_that_of_the_bytes_without_it(toy: Path) -> None:
    model = read_model(toy)
    assert model.metadata[DIGEST_KEY] == model.digest
    assert hashlib.sha256(model.data.replace(model.digest.encode(), b"0" * 64)).hexdigest() == model.digest


def test_other_metadata_are_kept_and_sealed(tmp_path: Path) -> None:
    proto = toy_proto()
    proto.metadata_props.add(key="owner", value="somebody")
    write_model(proto, SPEC, tmp_path / "a.onnx")
    model = read_model(tmp_path / "a.onnx")
    assert model.metadata["owner"] == "somebody"
    write_model(model.proto, SPEC.replace(score_threshold=0.5), tmp_path / "b.onnx")
    again = read_model(tmp_path / "b.onnx")
    assert again.metadata.keys() == {"owner", SPEC_KEY, DIGEST_KEY}
    assert again.spec.score_threshold == 0.5
    assert again.digest != model.digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"<html>", "web page"),
        (b"PK\x03\x04 a zip archive", "no ONNX model"),
        (np.random.default_rng(0).bytes(5000), "no ONNX model"),
        (onnx.ModelProto(producer_name="pytorch\x1b[0m").SerializeToString(), r"'pytorch\\x1b\[0m' and has no"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "names no producer and has no edgemask.spec"),
        (b"\x12\x03\xff\xfe\xfd", "has names that are not UTF-8"),
    ],
)
def test_what_is_no_model_of_ours(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refused(path, message)


OF_THE_FUTURE = SPEC.to_json().replace(f'"{SPEC.format_version}"', '"2.0"')


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({SPEC_KEY: SPEC.to_json()}, "is not sealed: it has no digest"),
        ({SPEC_KEY: SPEC.to_json(), DIGEST_KEY: "12ab"}, "has the digest '12ab', expected one of 64 digits"),
        ({SPEC_KEY: SPEC.to_json(), DIGEST_KEY: "0" * 63}, "is not sealed"),
        ([(SPEC_KEY, SPEC.to_json()), (DIGEST_KEY, "DIGEST"), (DIGEST_KEY, "1" * 64)], "is not sealed"),
        ([(SPEC_KEY, SPEC.to_json()), (DIGEST_KEY, "DIGEST"), (DIGEST_KEY, "short")], "lack edgemask.spec"),
        ({DIGEST_KEY: "DIGEST"}, "lack edgemask.spec"),
        ({SPEC_KEY: "{", DIGEST_KEY: "DIGEST"}, "specification inside the model file: expected JSON"),
        ({SPEC_KEY: "{}", DIGEST_KEY: "DIGEST"}, "specification inside the model file"),
        (
            {SPEC_KEY: OF_THE_FUTURE, DIGEST_KEY: "DIGEST"},
            "format_version",
        ),
    ],
)
def test_metadata_that_do_not_fit(
    tmp_path: Path, metadata: Mapping[str, str] | list[tuple[str, str]], message: str
) -> None:
    refused(sealed(toy_proto(), metadata, tmp_path / "m.onnx"), message)


def test_a_stranger_who_seals_as_we_do_is_read(tmp_path: Path) -> None:
    """The digest tells damage, not forgery: what other tests refuse is not refused for its seal."""
    path = sealed(toy_proto(), {SPEC_KEY: SPEC.to_json(), DIGEST_KEY: "DIGEST"}, tmp_path / "m.onnx")
    assert read_model(path).spec == SPEC


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.onnx", "cannot read .*nothing.onnx: No such file")
    refused(tmp_path, "is a folder")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(pipe, "is no file")
    with pytest.raises(ModelFileError, match="null"):
        read_model("a\0b")


def test_larger_than_a_message_may_be(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = toy.stat().st_size
    monkeypatch.setattr(modelfile, "SIZE_LIMIT", size)
    assert read_model(toy).spec == SPEC
    monkeypatch.setattr(modelfile, "SIZE_LIMIT", size - 1)
    refused(toy, f"has {size} bytes, an ONNX file at most {size - 1}")


def test_a_function_of_standard_operators_is_read(tmp_path: Path) -> None:
    proto = toy_proto()
    proto.functions.append(function("Relu", call("Relu", "")))
    write_model(proto, SPEC, tmp_path / "m.onnx")
    assert len(read_model(tmp_path / "m.onnx").proto.functions) == 1


@pytest.mark.parametrize(("side", "name"), [("input", "image_sizes"), ("output", "scores")])
def test_a_graph_of_other_inputs_or_outputs(tmp_path: Path, side: str, name: str) -> None:
    proto = toy_proto()
    values = getattr(proto.graph, side)
    values.remove(next(value for value in values if value.name == name))
    write_model(proto, SPEC, tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", f"no {name}$")


def test_a_failed_write_leaves_the_old_file(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = toy.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_model(toy_proto(), SPEC.replace(score_threshold=0.5), toy)
    assert toy.read_bytes() == before
    assert [path.name for path in toy.parent.iterdir()] == ["m.onnx"]


class TooLarge:
    """Stands in for a model of more than 2 GiB, which protobuf refuses to write."""

    def __init__(self) -> None:
        self.metadata_props = onnx.ModelProto().metadata_props

    def SerializeToString(self) -> bytes:  # noqa: N802
        raise EncodeError("Failed to serialize proto")


def test_a_model_too_large_to_write(toy: Path) -> None:
    before = toy.read_bytes()
    with pytest.raises(ModelFileError, match="larger than 2147483647 bytes"):
        write_model(TooLarge(), SPEC, toy)  # type: ignore[arg-type]
    assert toy.read_bytes() == before
