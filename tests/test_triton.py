"""The configuration written for Triton is read by Triton's published schema and held against the graph."""

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from layered import write_padded
from onnx import TensorProto, helper
from toy_model import SPEC, toy_proto, write_toy

from edgemask.errors import ModelFileError, OutputError, UsageError
from edgemask.runtimes import read_model, write_model
from edgemask.runtimes.modelfile import graph_inputs, graph_outputs
from edgemask.spec import ModelSpec
from edgemask.triton import package_model

# Name to type and dims; what is open has a name. As the exporter writes them.
IMAGES = {
    "images": (TensorProto.FLOAT, ["batch", 3, "rows", "columns"]),
    "image_sizes": (TensorProto.INT64, ["batch", 2]),
}
FLAT = {
    "batch_index": (TensorProto.INT64, ["found"]),
    "boxes": (TensorProto.FLOAT, ["found", 4]),
    "scores": (TensorProto.FLOAT, ["found"]),
    "labels": (TensorProto.INT64, ["found"]),
    "masks": (TensorProto.FLOAT, ["found", 28, 28]),
    "keypoint_heatmaps": (TensorProto.FLOAT, ["found", 17, 56, 56]),
}
PADDED = {
    "num_detections": (TensorProto.INT64, [2]),
    "boxes": (TensorProto.FLOAT, [2, 100, 4]),
    "scores": (TensorProto.FLOAT, [2, 100]),
    "labels": (TensorProto.INT64, [2, 100]),
    "masks": (TensorProto.FLOAT, [2, 100, 28, 28]),
}
MAP = {
    "labels": (TensorProto.INT64, ["batch", "rows", "columns"]),
    "scores": (TensorProto.FLOAT16, ["batch", "rows", "columns"]),
}
COCO_PARTS = ("boxes", "masks", "keypoints")


@pytest.fixture(scope="module")
def schema() -> Any:
    """`model_config_pb2.py` of the tritonclient wheel alone: the package around it wants gRPC."""
    (path,) = [
        file.locate()
        for file in importlib.metadata.files("tritonclient") or []
        if file.as_posix() == "tritonclient/grpc/model_config_pb2.py"
    ]
    found = importlib.util.spec_from_file_location("model_config_pb2", str(path))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def write_declared(path: Path, spec: ModelSpec, inputs: dict[str, Any], outputs: dict[str, Any]) -> Path:
    """A model file of which nobody looks at more than what goes in and out."""
    sides = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph([], "declared", *sides)
    write_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]), spec, path)
    return path


def fixed(declared: dict[str, Any], **sizes: int) -> dict[str, Any]:
    return {name: (kind, [sizes.get(side, side) for side in shape]) for name, (kind, shape) in declared.items()}


def config_in(folder: Path, schema: Any) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="ascii"), schema.ModelConfig())


def signature(values: Any) -> dict[str, tuple[str, list[int]]]:
    """Of a graph's inputs or outputs: Triton's name of the type, and dims with -1 for what is open."""
    words = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.FLOAT16: "TYPE_FP16", TensorProto.INT64: "TYPE_INT64"}
    return {
        value.name: (
            words[value.type.tensor_type.elem_type],
            [side.dim_value if side.HasField("dim_value") else -1 for side in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def configured(values: Any, schema: Any) -> dict[str, tuple[str, list[int]]]:
    return {value.name: (schema.DataType.Name(value.data_type), list(value.dims)) for value in values}


CASES = {
    "dynamic": (SPEC.replace(batch=None), IMAGES, {name: FLAT[name] for name in list(FLAT)[:5]}),
    "boxes": (SPEC.replace(tasks=("boxes",), mask_size=None), IMAGES, {name: FLAT[name] for name in list(FLAT)[:4]}),
    "keypoints": (SPEC.replace(tasks=COCO_PARTS, num_keypoints=17), IMAGES, FLAT),
    "static": (SPEC.replace(canvas=(64, 96), batch=2), fixed(IMAGES, batch=2, rows=64, columns=96), FLAT),
    "padded": (
        SPEC.replace(canvas=(64, 96), batch=2, outputs="padded"),
        fixed(IMAGES, batch=2, rows=64, columns=96),
        PADDED,
    ),
    "semantic": (
        SPEC.replace(tasks=("semantic",), mask_size=None, batch=None, precision="fp16"),
        IMAGES,
        MAP,
    ),
    "proposals": (
        SPEC.replace(proposals="input"),
        {**IMAGES, "proposals": (TensorProto.FLOAT, ["rois", 5])},
        FLAT,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_config_is_the_graph(case: str, tmp_path: Path, schema: Any) -> None:
    spec, inputs, outputs = CASES[case]
    path = write_declared(tmp_path / "m.onnx", spec, inputs, outputs)
    written = package_model(path, triton=tmp_path / "repository")
    folder = tmp_path / "repository" / "m"
    config, graph = config_in(folder, schema), onnx.load(folder / "1" / "model.onnx").graph
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 0)
    assert configured(config.input, schema) == signature(graph.input)
    assert configured(config.output, schema) == signature(graph.output)
    assert {value.name for value in config.input} >= set(graph_inputs(spec))
    assert {value.name for value in config.output} >= set(graph_outputs(spec))
    assert config.version_policy.latest.num_versions == 1
    assert config.WhichOneof("scheduling_choice") is None, "nothing cuts or joins the rows of flat outputs"
    assert not any(output.label_filename for output in config.output)
    assert (folder / "1" / "model.onnx").read_bytes() == path.read_bytes()
    assert read_model(folder / "1" / "model.onnx").digest == written.digest
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == ["dot", "line"]
    assert sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()) == sorted(written.files)


def test_a_file_that_runs_gives_what_the_config_says(tmp_path: Path, schema: Any) -> None:
    """ONNX Runtime alone, which the backend is made of, opens the copy and names the same tensors."""
    import onnxruntime

    write_padded(tmp_path / "padded.onnx")
    package_model(tmp_path / "padded.onnx", triton=tmp_path)
    config = config_in(tmp_path / "padded", schema)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "padded" / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    for declared, found in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        types = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}
        assert {name: (types[word], dims) for name, (word, dims) in configured(declared, schema).items()} == {
            one.name: (one.type, [side if isinstance(side, int) else -1 for side in one.shape]) for one in found
        }


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("dims: [", "dimensions: ["), ("TYPE_FP32", "TYPE_FLOAT"), ("max_batch_size: 0", 'max_batch_size: "none"')],
)
def test_the_schema_refuses_a_wrong_field(right: str, wrong: str, tmp_path: Path, schema: Any) -> None:
    package_model(write_toy(tmp_path / "toy.onnx"), triton=tmp_path)
    text = (tmp_path / "toy" / "config.pbtxt").read_text(encoding="ascii")
    assert right in text
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text.replace(right, wrong, 1), schema.ModelConfig())


def test_another_dimension_than_the_graphs_shows(tmp_path: Path, schema: Any) -> None:
    package_model(write_toy(tmp_path / "toy.onnx"), triton=tmp_path)
    config = config_in(tmp_path / "toy", schema)
    assert configured(config.output, schema) == signature(toy_proto().graph.output)
    config.output[1].dims[1] = 5
    assert configured(config.output, schema) != signature(toy_proto().graph.output)


@pytest.mark.parametrize(
    ("device", "kind", "gpus", "accelerators"),
    [
        ("auto", "KIND_AUTO", [], ["cuda"]),
        ("cpu", "KIND_CPU", [], []),
        ("cuda", "KIND_GPU", [], ["cuda"]),
        ("cuda:0", "KIND_GPU", [0], ["cuda"]),
        ("cuda:1", "KIND_GPU", [1], ["cuda"]),
        ("tensorrt", "KIND_GPU", [], ["tensorrt", "cuda"]),
        ("tensorrt:2", "KIND_GPU", [2], ["tensorrt", "cuda"]),
    ],
)
def test_the_device_is_an_instance_group(
    device: str, kind: str, gpus: list[int], accelerators: list[str], tmp_path: Path, schema: Any
) -> None:
    package_model(write_toy(tmp_path / "toy.onnx"), triton=tmp_path, device=device)
    config = config_in(tmp_path / "toy", schema)
    (group,) = config.instance_group
    assert (schema.ModelInstanceGroup.Kind.Name(group.kind), list(group.gpus)) == (kind, gpus)
    own = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [one.name for one in own] == accelerators
    options = {one.name: dict(one.parameters) for one in own}
    if "cuda" in options:  # float32 is float32, as everywhere in edgemask
        assert options["cuda"]["use_tf32"] == "0"
        assert config.parameters["cudnn_conv_algo_search"].string_value == "1"
    if "tensorrt" in options:
        assert options["tensorrt"] == {"precision_mode": "FP32"}
    assert config.parameters["enable_mem_pattern"].string_value == "0"


@pytest.mark.parametrize("device", ["openvino", "openvino:GPU", "torch", "gpu"])
def test_devices_that_triton_does_not_have_are_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        package_model(write_toy(tmp_path / "toy.onnx"), triton=tmp_path, device=device)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.onnx"]


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "a b", ".hidden", "-rf", "ä", "x" * 129, "a\n"])
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name: expected") as caught:
        package_model(write_toy(tmp_path / "toy.onnx"), triton=tmp_path / "repository", name=name)
    assert "--name" in (caught.value.remedy or "")
    assert not (tmp_path / "repository").exists()


def test_a_name_of_its_own(tmp_path: Path, schema: Any) -> None:
    toy = write_toy(tmp_path / "too strange.onnx")
    assert package_model(toy, triton=tmp_path, name="Street-2.1_b").name == "Street-2.1_b"
    assert config_in(tmp_path / "Street-2.1_b", schema).name == "Street-2.1_b"


def test_what_is_there_stays(tmp_path: Path) -> None:
    toy, mine = write_toy(tmp_path / "toy.onnx"), tmp_path / "repository" / "toy" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        package_model(toy, triton=tmp_path / "repository")
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]
    package_model(toy, triton=tmp_path / "repository", name="other")
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == ["other", "toy"]


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.onnx")
    with pytest.raises(OutputError, match=r"cannot write .*toy\.onnx/toy: (File exists|Not a directory)"):
        package_model(toy, triton=toy)
    with pytest.raises(OutputError, match=r"cannot write /proc/repository/toy: "):
        package_model(toy, triton="/proc/repository")


def test_only_sound_files_are_packaged(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.onnx")
    toy.write_bytes(toy.read_bytes().replace(b"stage/largest", b"stage/LARGEST"))
    with pytest.raises(ModelFileError, match="changed or cut"):
        package_model(toy, triton=tmp_path / "repository")
    shapeless = {**FLAT, "scores": (TensorProto.FLOAT, None)}
    spec = SPEC.replace(tasks=COCO_PARTS, num_keypoints=17)
    with pytest.raises(ModelFileError, match="too little of 'scores'"):
        package_model(write_declared(tmp_path / "m.onnx", spec, IMAGES, shapeless), triton=tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_odd_names_of_tensors_are_quoted(tmp_path: Path, schema: Any) -> None:
    spec = SPEC.replace(tasks=("boxes",), mask_size=None)
    odd = 'a "quoted\\ name\n] } ü'
    outputs = {**{name: FLAT[name] for name in list(FLAT)[:4]}, odd: (TensorProto.FLOAT, ["found"])}
    package_model(write_declared(tmp_path / "m.onnx", spec, IMAGES, outputs), triton=tmp_path)
    assert config_in(tmp_path / "m", schema).output[-1].name == odd
