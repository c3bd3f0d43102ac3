"""The torch ops against torchvision's own modules, and as nodes of a traced program."""

from typing import Any

import op_forms
import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, boxes

import edgemask.export.torch_ops  # noqa: F401  defines torch.ops.edgemask
from edgemask.errors import UsageError

POOLER = op_forms.roi_align_attributes(3)


def pyramid(batch: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, 4, 256 >> level, 320 >> level) for level in (2, 3, 4)]


def random_boxes(count: int) -> torch.Tensor:
    torch.manual_seed(count)
    corners = torch.rand(count, 2) * 200
    return torch.cat([corners, corners + torch.rand(count, 2) * 300], dim=1)


def rois_of(per_image: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([torch.cat([torch.full((len(b), 1), float(i)), b], dim=1) for i, b in enumerate(per_image)])


@pytest.mark.parametrize("sampling_ratio", [-1, 2])
@pytest.mark.parametrize("canonical_scale", [224, 112])
def test_pools_as_torchvision_module(sampling_ratio: int, canonical_scale: int) -> None:
    per_image = [random_boxes(50), random_boxes(0)]
    module = MultiScaleRoIAlign(["0", "1", "2"], (7, 5), sampling_ratio, canonical_scale=canonical_scale)
    features = pyramid()
    expected = module({str(i): f for i, f in enumerate(features)}, per_image, [(256, 320)] * 2)
    attributes = {**POOLER, "output_width": 5, "canonical_scale": float(canonical_scale)}
    attributes["sampling_ratio"] = max(sampling_ratio, 0)
    pooled = torch.ops.edgemask.multi_scale_roi_align(features, rois_of(per_image), **attributes)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=0)


@pytest.mark.parametrize("iou_threshold", [0.3, 0.5, 0.6])
def test_suppresses_as_torchvision_per_class(iou_threshold: float) -> None:
    corners, scores = random_boxes(60), torch.rand(5, 60)
    kept = torch.ops.edgemask.batched_nms(corners[None], scores[None], iou_threshold, 0.1, 1000)
    labels, indices = torch.where(scores > 0.1)
    expected = boxes._batched_nms_vanilla(corners[indices], scores[labels, indices], labels, iou_threshold)
    rows = torch.stack([torch.zeros_like(labels), labels, indices], dim=1)[expected]
    # torchvision orders by score alone; a stable sort by class gives the order of the op.
    assert torch.equal(kept, rows[torch.sort(rows[:, 1], stable=True).indices])


def arguments(name: str) -> tuple[Any, ...]:
    if name == "batched_nms":
        return random_boxes(20)[None], torch.rand(1, 3, 20), 0.5, 0.05, 10
    return (
        pyramid(),
        rois_of([random_boxes(9), random_boxes(4)]),
        7,
        7,
        2,
        [0.25, 0.125, 0.0625],
        224.0,
        4,
        ("output_half_pixel"),
    )


@pytest.mark.parametrize("name", ["batched_nms", "multi_scale_roi_align"])
def test_op_is_registered_right(name: str) -> None:
    # The op has no gradient; test_autograd_registration would ask for one.
    checks = ["test_schema", "test_faketensor", "test_aot_dispatch_dynamic"]
    torch.library.opcheck(getattr(torch.ops.edgemask, name).default, arguments(name), test_utils=checks)


def test_traced_program_keeps_one_node() -> None:
    class Suppress(torch.nn.Module):
        def forward(self, corners: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return torch.ops.edgemask.batched_nms(corners, scores, 0.5, 0.05, 10) + 1  # type: ignore[no-any-return]

    program = torch.export.export(Suppress(), arguments("batched_nms")[:2])
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.edgemask.batched_nms.default) == 1
    (output,) = (node.meta["val"] for node in program.graph.nodes if "batched_nms" in node.name)
    assert not isinstance(output.shape[0], int), "the number of survivors was baked in"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sampling_ratio": -1}, "sampling_ratio is -1"),
        ({"spatial_scales": [0.25, 0.125]}, "3 feature levels and 2 spatial scales"),
        ({"coordinate_transformation_mode": "asymmetric"}, "'asymmetric'"),
    ],
)
def test_wrong_attribute_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        torch.ops.edgemask.multi_scale_roi_align(pyramid(), rois_of([random_boxes(2)]), **{**POOLER, **changes})


@pytest.mark.parametrize("image", [-1.0, 2.0])
def test_roi_of_no_image_is_refused(image: float) -> None:
    rois = torch.tensor([[image, 0.0, 0.0, 9.0, 9.0]])
    with pytest.raises(UsageError, match="outside a batch of 2"):
        torch.ops.edgemask.multi_scale_roi_align(pyramid(), rois, **POOLER)


def test_wrong_threshold_is_refused_while_tracing() -> None:
    class Suppress(torch.nn.Module):
        def forward(self, corners: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return torch.ops.edgemask.batched_nms(corners, scores, 50.0, 0.05, 10)  # type: ignore[no-any-return]

    with pytest.raises(Exception, match="iou_threshold is 50"):
        torch.export.export(Suppress(), arguments("batched_nms")[:2])
