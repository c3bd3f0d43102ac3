"""torchvision's own builders, and its weights by name."""

import http.client
import socket
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from narrow import narrow_model
from torch import nn

from edgemask.checkpoints import load_model
from edgemask.errors import DependencyMissing, UsageError
from edgemask.models import BUILDERS, TORCHVISION_BUILDERS, build, fetch, parameter_count, weight_names

# Their documentation counts a backbone without its frozen normalisation. Of a builder by name it is trainable.
FROZEN = {name for name in TORCHVISION_BUILDERS if name.endswith("_fpn")}
ENTRIES = [(name, entry) for name in TORCHVISION_BUILDERS for entry in torchvision.models.get_model_weights(name)]


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=[f"{name}-{entry.name}" for name, entry in ENTRIES])
def test_parameters_are_those_of_the_documentation(name: str, entry: Any) -> None:
    semantic = "rcnn" not in name
    with torch.device("meta"):
        model = build(name, len(entry.meta["categories"]), **({"aux_loss": True} if semantic else {}))
    norms = [layer for layer in model.backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    expected = entry.meta["num_params"] + (sum(map(parameter_count, norms)) if name in FROZEN else 0)
    assert parameter_count(model) == expected


def test_names_of_weights() -> None:
    assert weight_names("maskrcnn_resnet50_fpn") == ("COCO_V1",)
    assert weight_names("keypointrcnn_resnet50_fpn") == ("COCO_LEGACY", "COCO_V1")
    assert weight_names("fcn_resnet50") == ("COCO_WITH_VOC_LABELS_V1",)
    assert [name for name in BUILDERS if weight_names(name)] == [n for n in BUILDERS if n in TORCHVISION_BUILDERS]


@pytest.mark.parametrize(
    ("builder", "remedy"),
    [
        ("maskrcnn_compact_fpn", "give a file"),
        ("maskrcnn_resnet18_fpn", "give a file"),
        ("maskrcnn_resnet50_fpn", "give a file, or COCO_V1"),
        ("keypointrcnn_resnet50_fpn", "give a file, or COCO_LEGACY or COCO_V1"),
        ("deeplabv3_resnet50", "give a file, or COCO_WITH_VOC_LABELS_V1"),
    ],
)
def test_weights_that_torchvision_does_not_have(builder: str, remedy: str) -> None:
    with pytest.raises(UsageError, match="'COCO_V9' is neither a file nor weights") as caught:
        load_model(builder, weights="COCO_V9")
    assert caught.value.remedy == remedy


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route to host"),
        RuntimeError("invalid hash value"),
        RuntimeError("network connection to ('192.0.2.1', 443) within a test"),
        http.client.IncompleteRead(b"half"),
        TimeoutError("timed out"),
    ],
)
def test_weights_without_network(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision.models, "get_model", unreachable)
    with pytest.raises(DependencyMissing, match="cannot fetch COCO_V1 of maskrcnn_resnet50_fpn_v2") as caught:
        fetch("maskrcnn_resnet50_fpn_v2", "COCO_V1")
    assert "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth" in (caught.value.remedy or "")


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=[f"{name}-{entry.name}" for name, entry in ENTRIES])
def test_weights_are_really_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, entry: Any) -> None:
    """The whole way through torchvision, down to a name that cannot be resolved."""

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror("Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with torch.device("meta"), pytest.raises(DependencyMissing, match="name resolution") as caught:
        load_model(name, weights=entry.name)
    file = Path(entry.url).name
    assert f"download {file} elsewhere and put it into {tmp_path}" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("maskrcnn_resnet50_fpn", "person", "toothbrush", 90),
        ("fasterrcnn_mobilenet_v3_large_fpn", "person", "toothbrush", 90),
        ("keypointrcnn_resnet50_fpn", "person", "person", 1),
        ("fcn_resnet101", "aeroplane", "tvmonitor", 20),
    ],
)
def test_names_of_the_labels(monkeypatch: pytest.MonkeyPatch, name: str, first: str, last: str, count: int) -> None:
    """Label 0 has the first name of the list, whatever it is called there."""
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: narrow_model(count + 1))
    _, names = fetch(name, "DEFAULT")
    assert (names[0], names[-1], len(names)) == (first, last, count)
    _, spec = load_model(name, weights="DEFAULT")
    assert spec.class_names == names
    assert spec.category_ids == tuple(range(1, count + 1))
    assert spec.builder == name


def test_a_file_in_the_cache_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By name and by path the same model comes of it; a real one has the second classifier, which is left out."""
    name = "deeplabv3_mobilenet_v3_large"
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    file = cache / Path(torchvision.models.get_model_weights(name).DEFAULT.url).name
    torch.save(build(name, 21, aux_loss=True).state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model, spec = load_model(name, weights="COCO_WITH_VOC_LABELS_V1")
    assert spec.tasks == ("semantic",)
    assert spec.label_name(15) == "person"
    assert model.aux_classifier is None
    assert not model.training
    _, from_file = load_model(name, weights=file)
    assert from_file.source_sha256 == spec.source_sha256
    assert from_file.class_names == tuple(f"class_{label}" for label in range(1, 21))
