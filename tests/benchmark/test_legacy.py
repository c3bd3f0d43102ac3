"""torchvision's own export does what torchvision does."""

import numpy as np
import pytest
import torch
from tiny_model import TINY, tiny_model

from edgemask.benchmark.legacy import export_legacy
from edgemask.description import spec_of
from edgemask.errors import UnsupportedModel
from edgemask.models import build
from edgemask.reference import ReferenceDetector
from edgemask.scenes import draw_scene


@pytest.mark.parametrize("paste", [True, False])
def test_legacy_export_does_what_torchvision_does(paste: bool) -> None:
    """On an image of the traced size that the trace did not see."""
    import onnxruntime

    model = tiny_model()
    spec = spec_of(model).replace(max_detections=9)
    data = export_legacy(model, spec, draw_scene(0).image[:120, :150].copy(), paste=paste)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    pixels = draw_scene(1).image[:120, :150].copy()
    expected = ReferenceDetector(model, spec).predict(pixels)
    boxes, labels, scores, masks = session.run(None, {"image": pixels.transpose(2, 0, 1).astype(np.float32) / 255})
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    if paste:
        np.testing.assert_allclose(boxes, expected.boxes, atol=1e-2)
        assert masks.shape == (9, 1, 120, 150)
        assert ((masks[:, 0] > 0.5) != expected.bitmaps()).mean() < 1e-3
    else:
        np.testing.assert_allclose(boxes * 120 / 96, expected.boxes, atol=1e-2)
        assert expected.masks is not None
        np.testing.assert_allclose(masks[:, 0], expected.masks, atol=1e-4)


def test_legacy_export_that_fails_names_the_way_out() -> None:
    model = build("maskrcnn_compact_fpn", 3, **TINY)
    spec = spec_of(model)
    model.roi_heads.mask_head = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, padding=1), Untraceable())
    with pytest.raises(UnsupportedModel, match=r"(?s)has no way.*--against"):
        export_legacy(model, spec, draw_scene(0).image)


class Untraceable(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("this layer has no way into a trace")
