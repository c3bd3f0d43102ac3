"""How a library is told to open a model: every option of ours with its reason, in this file alone.

Nothing here comes from a model file: its spec says what the model is, never how or where it runs.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from edgemask.checks import Described, refuse
from edgemask.errors import UsageError
from edgemask.processors import thread_count
from edgemask.spec import ModelSpec

Precision = Literal["file", "tf32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How to open a model; the defaults are meant to be right, and the same for every model and device.

    Attributes:
        threads: processors to use; None: all that this process may use, by affinity and control group.
        precision: arithmetic of what the file has in float32. `file` is float32 itself: bfloat16 and TF32, which
            libraries take by default where the processor has them, are off. `tf32` is for `cuda` and `tensorrt`, `bf16`
            for OpenVINO's CPU, `fp16` for its GPU and NPU and for `tensorrt`. What a file has in float16 or INT8 is
            left to the file.
        cache: whether compiled models are kept for the next opening; a folder keeps them there.
        memory_limit: MiB of GPU memory that ONNX Runtime may take on `cuda` and `tensorrt`; None: what it needs.
        streams: images that `cpu` and `openvino` work on at a time, each with its share of the threads: one, as None
            has it, is for a short answer; more are for many, in `Detector.stream` or from threads of the caller. Each
            has its memory.
        library: options of the library itself, by its own names, which win over ours; but for those that say on which
            device it runs, where it keeps what it compiled, and whether it tells what runs where.

    Raises:
        UsageError: a value that cannot be meant.
    """

    threads: int | None = None
    precision: Precision = "file"
    cache: bool | str | os.PathLike[str] = True
    memory_limit: int | None = None
    streams: int | None = None
    library: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("memory_limit", 1), ("streams", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                refuse(name, f"a whole number of at least {least}", value)
        if self.precision not in PRECISIONS:
            refuse("precision", " or ".join(PRECISIONS), self.precision)
        if not isinstance(self.cache, bool | str | os.PathLike):
            refuse("cache", "True, False or a folder", self.cache)
        if not isinstance(self.library, Mapping):
            refuse("library", "a mapping of names to values", self.library)
        if not all(isinstance(word, str) for pair in self.library.items() for word in pair):
            refuse("library", "names and values as text", Described(repr(dict(self.library))))


OPTION_NAMES = tuple(entry.name for entry in fields(RuntimeOptions) if entry.name != "library")
_HAVE = {
    "memory_limit": "leave it out; cuda and tensorrt have it",
    "streams": "leave it out; cpu and openvino have it",
    "library": "leave it out; threads is the one that it has",
}
# Options of the libraries that would undo what edgemask promises, and what to use in their place.
_CACHES = ("trt_engine_cache_path", "trt_timing_cache_path", "CACHE_DIR")
_OURS = {
    **dict.fromkeys(_CACHES, "choose the folder with cache=FOLDER"),
    "device_id": "name the GPU in the device, such as cuda:1",
    "session.record_ep_graph_assignment_info": "leave it out: placement is known by it",
    "PERF_COUNT": "leave it out: `edgemask inspect --device` and Detector.placement() show times",
}
# For models that are opened in passing, such as parts of a graph: nothing of them is kept.
UNCACHED = RuntimeOptions(cache=False)


def parse_options(texts: Sequence[str]) -> RuntimeOptions:
    """Reads options as the command line has them, `key=value`; a key that is none of ours is one of the library's.

    Raises:
        UsageError: no `=`, or a value that cannot be meant.
    """
    own: dict[str, object] = {}
    library: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            refuse("option", "KEY=VALUE, such as threads=2", text)
        if key in OPTION_NAMES:
            own[key] = _value(key, value)
        else:
            library[key] = value
    return RuntimeOptions(**own, library=library)  # type: ignore[arg-type]


def _value(key: str, text: str) -> object:
    if key == "cache":
        return {"true": True, "false": False}.get(text.lower(), text)
    if key == "precision":
        return text
    if not text.isascii() or not text.isdigit():
        refuse(key, "a whole number", text)
    return int(text)


def check_options(
    options: RuntimeOptions, device: str, *, precisions: Sequence[str] = (), others: Sequence[str] = ()
) -> None:
    """Refuses what a device does not offer, before it would be ignored in silence.

    Args:
        options: what the user asked for.
        device: for the message.
        precisions: those that it offers beside `file`.
        others: of `memory_limit`, `streams` and `library`, those that it has.

    Raises:
        UsageError: an option that it does not have, or one of the library's that is not the user's to set.
    """
    if options.precision not in ("file", *precisions):
        refuse("precision", f"{' or '.join(('file', *precisions))} on {device}", options.precision)
    asked = {
        "memory_limit": options.memory_limit is not None,
        "streams": (options.streams or 1) > 1,
        "library": bool(options.library),
    }
    for name in (name for name, is_asked in asked.items() if is_asked and name not in others):
        got = ", ".join(options.library) if name == "library" else name
        raise UsageError(f"{device} has no option {got}", _HAVE[name])
    for name, instead in _OURS.items():
        if name in options.library:
            raise UsageError(f"the option {name} is not for you to set", instead)


def session_threads(options: RuntimeOptions) -> int:
    """Threads of an ONNX Runtime session, the one that calls it among them: each of its runs has so many."""
    return max(1, (options.threads or thread_count()) // (options.streams or 1))


def session_entries(*, alone: bool) -> dict[str, str]:
    """Configuration entries of any ONNX Runtime session.

    Args:
        alone: whether the graph runs on the CPU alone.
    """
    entries = {"session.record_ep_graph_assignment_info": "1"}  # which node runs where: free, and the only witness
    if not alone:
        # Threads of the few nodes on the CPU would spin while the GPU works, and take a core of a small machine.
        entries["session.intra_op.allow_spinning"] = "0"
    return entries


def changing(spec: ModelSpec) -> bool:
    """Whether shapes inside the graph change from run to run: with the image, the batch, or what is found."""
    return None in (spec.canvas, spec.batch) or spec.outputs == "flat"


def cuda_options(options: RuntimeOptions, spec: ModelSpec, number: str) -> dict[str, str]:
    """Options of ONNX Runtime's CUDA provider.

    Args:
        options: what the user asked for.
        spec: of the model.
        number: of the GPU.
    """
    values = {
        "device_id": number,
        "use_tf32": "1" if options.precision == "tf32" else "0",
        # An exhaustive search would be repeated for every new shape: 634 ms against 2 ms.
        "cudnn_conv_algo_search": "HEURISTIC",
        # With changing shapes the largest workspace of all would stay reserved.
        "cudnn_conv_use_max_workspace": "0" if changing(spec) else "1",
        # Blocks of one shape are asked for once: doubling would take most of the memory that a Jetson's GPU shares with
        # all else. With changing shapes it would leave a block of each size.
        "arena_extend_strategy": "kNextPowerOfTwo" if changing(spec) else "kSameAsRequested",
    }
    if options.memory_limit is not None:
        values["gpu_mem_limit"] = str(options.memory_limit * _MEBIBYTE)
    return values


def tensorrt_options(options: RuntimeOptions, spec: ModelSpec, number: str, folder: str | None) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT provider.

    Args:
        options: what the user asked for.
        spec: of the model.
        number: of the GPU.
        folder: where engines and timings are kept; None keeps nothing.
    """
    values = {
        "device_id": number,
        # A type that the file does not have is not used by itself: results stay those of the file.
        "trt_fp16_enable": "1" if options.precision == "fp16" or spec.precision == "fp16" else "0",
        "trt_int8_enable": "1" if spec.precision == "int8" else "0",
        # Shapes that depend on data cut the graph into many small engines inside TensorRT; the CUDA provider has them.
        "trt_op_types_to_exclude": "NonMaxSuppression,NonZero,RoiAlign",
    }
    if options.memory_limit is not None:
        values["trt_max_workspace_size"] = str(options.memory_limit * _MEBIBYTE)
    if folder is not None:
        values |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": folder,
        }
    return values


def shrinking_run(number: str) -> dict[str, str]:
    """Entries of a run on a GPU with images of another shape than before: what the arena does not hold is given back.

    After every run it would cost more than it saves: 15-20 % of the time where it was measured, on a CPU. The CPU's
    arena is not shrunk: it stays as large as the largest image needs.
    """
    return {"memory.enable_memory_arena_shrinkage": f"gpu:{number}"}


def openvino_properties(options: RuntimeOptions, spec: ModelSpec, target: str) -> dict[str, str]:
    """Properties of a compiled OpenVINO model.

    Args:
        options: what the user asked for.
        spec: of the model.
        target: OpenVINO's name of the device.
    """
    own = "f16" if spec.precision == "fp16" and target != "CPU" else "f32"
    streams = options.streams or 1
    values = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        # By default it computes in bfloat16 or float16 wherever the processor can.
        "INFERENCE_PRECISION_HINT": {"file": own, "bf16": "bf16", "fp16": "f16"}[options.precision],
    }
    if streams > 1:
        values["NUM_STREAMS"] = str(streams)
    if target == "CPU":
        values["INFERENCE_NUM_THREADS"] = str(options.threads or thread_count())
    return values
