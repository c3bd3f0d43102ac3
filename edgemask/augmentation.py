"""Augmentation of images together with their masks and keypoints, and the targets that come of it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

Sample = tuple[torch.Tensor, dict[str, Any]]
Augment = Callable[[tv_tensors.Image, dict[str, Any]], Sample]

_SIDES = {"left": "right", "right": "left"}


def with_boxes(target: dict[str, Any]) -> dict[str, Any]:
    """Adds the smallest box around each mask and drops objects without a pixel: crops may have cut them off.

    Keypoints, float32 [N, K, 2], become torchvision's float32 [N, K, 3]: x, y and 1; 0, 0, 0 where a point was not
    marked, which NaN says, or lies outside of the image now.
    """
    masks = target["masks"].as_subclass(torch.Tensor)
    rows, columns = masks.amax(2).bool(), masks.amax(1).bool()
    kept = rows.any(1) & columns.any(1)
    masks, rows, columns = masks[kept], rows[kept].to(torch.uint8), columns[kept].to(torch.uint8)
    left, top = columns.argmax(1), rows.argmax(1)
    right = columns.shape[1] - columns.flip(1).argmax(1)
    bottom = rows.shape[1] - rows.flip(1).argmax(1)
    boxes = torch.stack([left, top, right, bottom], 1).to(torch.float32)
    found = {"boxes": boxes, "labels": target["labels"][kept], "masks": masks}
    if "keypoints" in target:
        found["keypoints"] = _visible(target["keypoints"].as_subclass(torch.Tensor)[kept], *masks.shape[1:])
    return found


def _visible(points: torch.Tensor, height: int, width: int) -> torch.Tensor:
    last = torch.tensor([width - 1, height - 1])
    inside = ((points > -0.5) & (points < last + 0.5)).all(2, keepdim=True)  # not of NaN either
    return torch.where(inside, torch.cat([points, torch.ones_like(points[..., :1])], 2), 0.0)


def mirrored(names: Sequence[str]) -> list[int]:
    """Where each keypoint is found in the mirrored image: `left_eye` where `right_eye` was; others stay."""
    others = ["_".join(_SIDES.get(word, word) for word in name.split("_")) for name in names]
    return [names.index(other) if other in names else at for at, other in enumerate(others)]


class AlignedCrop(v2.RandomResizedCrop):  # type: ignore[misc]
    """torchvision's transform with masks and keypoints at pixel centres, as images are.

    Its own nearest sampling of masks lies half a pixel to the right and below: measured 0.49 pixels on 172 crops, which
    costs a mask of 30 pixels an eighth of its IoU. Keypoints are numbers of pixels, as in COCO's files; it scales them
    as if they were distances from the border.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crops and resizes one input of the sample."""
        if isinstance(inpt, tv_tensors.KeyPoints):
            moved = super().transform(tv_tensors.wrap(inpt + 0.5, like=inpt), params)
            return tv_tensors.wrap(moved - 0.5, like=moved)
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        window = [params[name] for name in ("top", "left", "height", "width")]
        cut = v2.functional.crop_image(inpt.as_subclass(torch.Tensor), *window)
        exact = v2.InterpolationMode.NEAREST_EXACT
        return tv_tensors.Mask(v2.functional.resize_image(cut, list(self.size), interpolation=exact))


class _Renaming:
    """A flip after which left keypoints are right ones."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Flips one input of the sample."""
        flipped = super().transform(inpt, params)  # type: ignore[misc]
        if isinstance(inpt, tv_tensors.KeyPoints):
            return tv_tensors.wrap(flipped[:, self.order], like=flipped)
        return flipped


class _HorizontalFlip(_Renaming, v2.RandomHorizontalFlip):  # type: ignore[misc]
    pass


class _VerticalFlip(_Renaming, v2.RandomVerticalFlip):  # type: ignore[misc]
    pass


def augmentation(
    *,
    crop: int | None = None,
    crop_share: tuple[float, float] = (0.15, 0.7),
    flips: bool = False,
    keypoint_names: Sequence[str] = (),
) -> Augment:
    """The augmentation of `train`, by torchvision's transforms: crop and scale, flips, light and colour.

    Args:
        crop: side in pixels to which a random crop is resized; None keeps whole images as they are.
        crop_share: range of the crop's share of the image's area: a wide one varies the scale of the objects.
        flips: flip upside down too, for pictures without a natural up.
        keypoint_names: of the keypoints in a sample: those with `left` and `right` in them change places in a flip.
    """
    steps: list[Any] = []
    if crop is not None:
        # No antialiasing: the exported graph's input is resized without it too.
        steps.append(AlignedCrop(crop, scale=crop_share, ratio=(0.8, 1.25), antialias=False))
    order = mirrored(keypoint_names)
    steps.append(_HorizontalFlip(order))
    if flips:
        steps.append(_VerticalFlip(order))
    steps.append(v2.RandomPhotometricDistort(p=0.5))
    transform: Augment = v2.Compose(steps)
    return transform
