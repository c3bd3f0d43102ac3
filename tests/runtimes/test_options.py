"""How libraries are told to open a model: defaults, what a user may ask for, and what is refused."""

from typing import Any

import pytest
from toy_model import SPEC

from edgemask.errors import UsageError
from edgemask.processors import thread_count
from edgemask.runtimes import RuntimeOptions
from edgemask.runtimes.options import (
    changing,
    check_options,
    cuda_options,
    openvino_properties,
    parse_options,
    session_entries,
    session_threads,
    tensorrt_options,
)

DEFAULT = RuntimeOptions()
DYNAMIC = SPEC.replace(canvas=None)
FIXED = SPEC.replace(canvas=(64, 64), batch=1, outputs="padded")


def test_defaults() -> None:
    assert (
        RuntimeOptions(threads=None, precision="file", cache=True, memory_limit=None, streams=None, library={})
        == DEFAULT
    )
    assert session_threads(DEFAULT) == thread_count()
    assert session_threads(RuntimeOptions(threads=3)) == 3
    assert session_threads(RuntimeOptions(threads=4, streams=2)) == 2
    assert session_threads(RuntimeOptions(threads=2, streams=8)) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threads": 0}, "threads: expected a whole number of at least 1, got 0"),
        ({"threads": True}, "threads: expected a whole number"),
        ({"threads": 1.5}, "threads: expected a whole number"),
        ({"streams": 0}, "streams: expected a whole number of at least 1"),
        ({"memory_limit": -1}, "memory_limit: expected a whole number of at least 1"),
        ({"precision": "int8"}, "precision: expected file or tf32 or bf16 or fp16, got 'int8'"),
        ({"library": {"a": 1}}, "library: expected names and values as text"),
        ({"library": None}, "library: expected a mapping of names to values, got None"),
        ({"cache": 5}, "cache: expected True, False or a folder, got 5"),
    ],
)
def test_values_that_cannot_be_meant(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RuntimeOptions(**values)


def test_options_of_the_command_line() -> None:
    texts = ["threads=2", "precision=bf16", "cache=false", "memory_limit=512", "streams=4", "NUM_STREAMS=4", "a.b=c=d"]
    assert parse_options(texts) == RuntimeOptions(
        threads=2,
        precision="bf16",
        cache=False,
        memory_limit=512,
        streams=4,
        library={"NUM_STREAMS": "4", "a.b": "c=d"},
    )
    assert parse_options([]) == DEFAULT
    assert parse_options(["cache=out/cache"]).cache == "out/cache"


@pytest.mark.parametrize(
    "text", ["threads", "threads=", "=2", "threads=two", "threads=-1", "threads=²", "precision=int4"]
)
def test_options_of_the_command_line_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError):
        parse_options([text])


def test_a_precision_that_a_device_does_not_have() -> None:
    check_options(RuntimeOptions(precision="tf32"), "cuda:0", precisions=["tf32"])
    check_options(DEFAULT, "cpu")
    check_options(RuntimeOptions(streams=1), "cuda:0")  # what it does anyway
    with pytest.raises(UsageError, match="precision: expected file on cpu, got 'bf16'"):
        check_options(RuntimeOptions(precision="bf16"), "cpu")


@pytest.mark.parametrize(
    ("values", "name"),
    [({"memory_limit": 1}, "memory_limit"), ({"streams": 2}, "streams"), ({"library": {"a": "b"}}, "a")],
)
def test_an_option_that_a_device_does_not_have(values: dict[str, Any], name: str) -> None:
    options = RuntimeOptions(**values)
    check_options(options, "cuda:0", others=list(values))
    with pytest.raises(UsageError, match=f"cuda:0 has no option {name}"):
        check_options(options, "cuda:0")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("device_id", "cuda:1"),
        ("trt_engine_cache_path", "cache=FOLDER"),
        ("trt_timing_cache_path", "cache=FOLDER"),
        ("CACHE_DIR", "cache=FOLDER"),
        ("session.record_ep_graph_assignment_info", "placement"),
        ("PERF_COUNT", "placement"),
    ],
)
def test_options_of_libraries_that_are_ours_to_set(name: str, instead: str) -> None:
    with pytest.raises(UsageError, match=f"the option {name} is not for you to set") as caught:
        check_options(RuntimeOptions(library={name: "1"}), "cuda:0", others=["library"])
    assert instead in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (FIXED, False),
        (FIXED.replace(outputs="flat"), True),
        (FIXED.replace(batch=None), True),
        (FIXED.replace(canvas=None), True),
    ],
)
def test_shapes_change_with_the_image_the_batch_and_what_is_found(spec: Any, changes: bool) -> None:
    assert changing(spec) is changes


def test_threads_beside_a_gpu_do_not_spin() -> None:
    assert "session.intra_op.allow_spinning" not in session_entries(alone=True)
    assert session_entries(alone=False)["session.intra_op.allow_spinning"] == "0"


def test_cuda() -> None:
    fixed, dynamic = cuda_options(DEFAULT, FIXED, "1"), cuda_options(DEFAULT, DYNAMIC, "1")
    assert (fixed["device_id"], fixed["use_tf32"]) == ("1", "0")
    assert (fixed["cudnn_conv_algo_search"], dynamic["cudnn_conv_algo_search"]) == ("HEURISTIC", "HEURISTIC")
    assert (fixed["cudnn_conv_use_max_workspace"], dynamic["cudnn_conv_use_max_workspace"]) == ("1", "0")
    assert (fixed["arena_extend_strategy"], dynamic["arena_extend_strategy"]) == ("kSameAsRequested", "kNextPowerOfTwo")
    assert "gpu_mem_limit" not in fixed
    asked = cuda_options(RuntimeOptions(precision="tf32", memory_limit=2), FIXED, "0")
    assert (asked["use_tf32"], asked["gpu_mem_limit"]) == ("1", "2097152")


@pytest.mark.parametrize(
    ("file", "asked", "half", "int8"),
    [("fp32", "file", "0", "0"), ("fp32", "fp16", "1", "0"), ("fp16", "file", "1", "0"), ("int8", "file", "0", "1")],
)
def test_tensorrt_computes_in_what_the_file_has(file: Any, asked: Any, half: str, int8: str) -> None:
    values = tensorrt_options(RuntimeOptions(precision=asked), FIXED.replace(precision=file), "0", None)
    assert (values["trt_fp16_enable"], values["trt_int8_enable"]) == (half, int8)
    assert "trt_engine_cache_enable" not in values


def test_tensorrt_keeps_engines_and_timings() -> None:
    values = tensorrt_options(RuntimeOptions(memory_limit=1), FIXED, "0", "folder")
    assert (values["trt_engine_cache_path"], values["trt_timing_cache_path"]) == ("folder", "folder")
    assert (values["trt_engine_cache_enable"], values["trt_timing_cache_enable"]) == ("1", "1")
    assert values["trt_max_workspace_size"] == "1048576"
    assert values["trt_op_types_to_exclude"] == "NonMaxSuppression,NonZero,RoiAlign"


def test_openvino() -> None:
    assert openvino_properties(DEFAULT, DYNAMIC, "CPU") == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(thread_count()),
    }
    asked = openvino_properties(RuntimeOptions(precision="bf16", streams=4, threads=3), DYNAMIC, "CPU")
    assert asked == {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": "4",
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": "3",
    }
    assert "INFERENCE_NUM_THREADS" not in openvino_properties(DEFAULT, DYNAMIC, "GPU")


def test_openvino_computes_a_file_in_float16_as_such_where_it_can() -> None:
    half = DYNAMIC.replace(precision="fp16")
    assert openvino_properties(DEFAULT, half, "GPU")["INFERENCE_PRECISION_HINT"] == "f16"
    assert openvino_properties(DEFAULT, half, "CPU")["INFERENCE_PRECISION_HINT"] == "f32"
    assert openvino_properties(DEFAULT, DYNAMIC, "NPU")["INFERENCE_PRECISION_HINT"] == "f32"
