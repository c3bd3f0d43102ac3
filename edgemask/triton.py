"""A model repository of Triton Inference Server, written around an exported file.

Unverified: no server has loaded one yet. What is checked is the configuration: tests parse it by Triton's published
schema and hold it against the graph. What the server does with each entry was read in its ONNX Runtime backend.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemask.checks import pattern
from edgemask.errors import DependencyMissing, ModelFileError, UsageError
from edgemask.files import creating_folder
from edgemask.inspection import TensorInfo, tensor_info
from edgemask.spec import ModelSpec

if TYPE_CHECKING:
    from edgemask.runtimes import ModelFile

CONFIG, LABELS, MODEL = "config.pbtxt", "labels.txt", "model.onnx"
VERSION = 1  # of the model; Triton wants a folder of each
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "1 to 128 letters, digits, points, dashes and underscores")
_TYPES = {
    "bool": "TYPE_BOOL",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
}
_KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "cuda": "KIND_GPU", "tensorrt": "KIND_GPU"}
# The backend knows two of the CUDA provider's options by numbers, and where those are missing takes its own defaults
# for them, whatever its accelerator `cuda` is told.
_NUMBERED = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}


class _Word(str):
    """A value that stands without quotation marks, as those of an enumeration do."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonPackage:
    """A model in a model repository.

    Attributes:
        repository: the folder that Triton is started with.
        name: of the model, and of its folder there.
        device: as it was asked for.
        backend: what runs the model.
        max_batch_size: 0: the dimension of the batch is one of the tensors' own.
        inputs: of the graph.
        outputs: of the graph.
        files: what was written, by their paths in the model's folder.
        digest: seal of the model file, which is a copy.
    """

    repository: str
    name: str
    device: str
    backend: str
    max_batch_size: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    files: tuple[str, ...]
    digest: str


def package_model(
    model: str | Path, *, triton: str | Path, name: str | None = None, device: str = "auto"
) -> TritonPackage:
    """Writes a model file and its configuration into a model repository of Triton Inference Server.

    Triton runs it by its ONNX Runtime backend: a portable file has the bodies of its custom operators inside. The
    server does not cut or join batches (`max_batch_size: 0`), since the rows of flat outputs belong to images by their
    number. Class names go into `labels.txt`, one a line, by label; Triton's own `label_filename` is for scores by
    class, which no output holds.

    Args:
        model: an ONNX file written by edgemask; it is copied as it is.
        triton: folder of the repository; made where it is missing.
        name: of the model; None takes the file's name without its ending.
        device: `cpu`, `cuda`, `cuda:N`, `tensorrt`, `tensorrt:N` for the CUDA provider with TensorRT before it, or
            `auto`, which leaves the choice between CPU and GPU to the server.

    Returns:
        What was written.

    Raises:
        ModelFileError: no sound model file, or one that Triton cannot be told the tensors of.
        UsageError: a device that Triton's backend does not have, or a name that cannot be one of a folder.
        OutputError: the repository has such a model already, or cannot be written to.
        DependencyMissing: the package onnx is not installed.
    """
    try:
        from edgemask.runtimes.modelfile import read_model
    except ImportError as error:
        raise DependencyMissing(f"reading a model file needs {error.name}", "pip install 'edgemask[cpu]'") from error
    kind, number = _placed(device)
    name = _checked_name(Path(model).stem if name is None else name)
    file = read_model(model)
    inputs, outputs = (tuple(_tensors(file, values)) for values in (file.proto.graph.input, file.proto.graph.output))
    config = _config(name, inputs, outputs, file.spec, kind, number)
    with creating_folder(Path(triton) / name) as folder:
        (folder / CONFIG).write_text("\n".join(_lines(config)) + "\n", encoding="ascii")
        (folder / LABELS).write_text("".join(f"{one}\n" for one in file.spec.class_names), encoding="utf-8")
        (folder / str(VERSION)).mkdir()
        (folder / str(VERSION) / MODEL).write_bytes(file.data)
    return TritonPackage(
        repository=str(triton),
        name=name,
        device=device,
        backend=config["backend"],
        max_batch_size=config["max_batch_size"],
        inputs=inputs,
        outputs=outputs,
        files=(CONFIG, LABELS, f"{VERSION}/{MODEL}"),
        digest=file.digest,
    )


def _placed(device: str) -> tuple[str, str | None]:
    """A device's kind, a key of `_KINDS`, and the number of its GPU, if one was named."""
    from edgemask.runtimes.devices import device_named

    kind, _, number = ("auto", "", "") if device == "auto" else device_named(device).name.partition(":")
    if kind not in _KINDS:
        raise UsageError(
            f"Triton's ONNX Runtime backend does not run on {device}", "expected auto, cpu, cuda[:N] or tensorrt[:N]"
        )
    number = number or device.partition(":")[2]
    return kind, number or None


def _checked_name(name: str) -> str:
    try:
        return str(_NAME("name", name))
    except UsageError as error:
        raise UsageError(error.problem, "give the model another name with --name") from error


def _tensors(file: "ModelFile", values: Sequence[Any]) -> Iterator[TensorInfo]:
    for value in values:
        tensor = tensor_info(value)
        if tensor.dtype not in _TYPES or not tensor.shape:
            raise ModelFileError(
                f"{file.path} says too little of {tensor.name!r}: {tensor.dtype} {list(tensor.shape)}",
                "export it again",
            )
        yield tensor


def _config(
    name: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    spec: ModelSpec,
    kind: str,
    number: str | None,
) -> dict[str, Any]:
    """The message `ModelConfig`: dictionaries are messages, lists repeated fields."""
    group: dict[str, Any] = {"count": 1, "kind": _Word(_KINDS[kind])}
    if number is not None:
        group["gpus"] = [int(number)]
    return {
        "name": name,
        "backend": "onnxruntime",
        "default_model_filename": MODEL,
        "max_batch_size": 0,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [_described(tensor) for tensor in inputs],
        "output": [_described(tensor) for tensor in outputs],
        "instance_group": [group],
        **_options(spec, kind),
    }


def _described(tensor: TensorInfo) -> dict[str, Any]:
    dims = [side if isinstance(side, int) else -1 for side in tensor.shape]
    return {"name": tensor.name, "data_type": _Word(_TYPES[tensor.dtype]), "dims": dims}


def _options(spec: ModelSpec, kind: str) -> dict[str, Any]:
    """What `edgemask.runtimes` tells ONNX Runtime, as far as the backend passes it on: float32 is float32 there too."""
    from edgemask.runtimes.options import RuntimeOptions, changing, cuda_options

    # Memory patterns are made for one shape; with changing shapes they pile up.
    parameters = {"enable_mem_pattern": "0"} if changing(spec) else {}
    accelerators = []
    if kind == "tensorrt":
        accelerators.append(_accelerator("tensorrt", {"precision_mode": spec.precision.upper()}))
    if kind != "cpu":
        own = cuda_options(RuntimeOptions(), spec, "0")
        del own["device_id"]  # the backend's to give
        parameters |= {key: str(words.index(own.pop(key))) for key, words in _NUMBERED.items()}
        accelerators.append(_accelerator("cuda", own))
    found: dict[str, Any] = {
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()]
    }
    if accelerators:
        found["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": accelerators}}
    return found


def _accelerator(name: str, options: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "parameters": [{"key": key, "value": value} for key, value in options.items()]}


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A message in protobuf's text format."""
    for field, value in message.items():
        several = value if isinstance(value, list) else [value]
        if several and all(isinstance(one, int) for one in several) and isinstance(value, list):
            yield f"{indent}{field}: [{', '.join(map(str, several))}]"
            continue
        for one in several:
            if isinstance(one, Mapping):
                yield f"{indent}{field} {{"
                yield from _lines(one, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field}: {_quoted(one) if isinstance(one, str) else one}"


def _quoted(text: str) -> str:
    if isinstance(text, _Word):
        return text
    characters = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(characters)}"'
