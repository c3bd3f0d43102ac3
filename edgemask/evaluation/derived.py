"""A reference's own detections as annotations: AP against the reference, where nobody has annotated the images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgemask.checks import Described, refuse
from edgemask.errors import UsageError
from edgemask.evaluation.runlengths import pixels
from edgemask.evaluation.truth import checked_truth

Image = tuple[int, tuple[int, int], Sequence[Mapping[str, Any]]]


def truth_from(images: Iterable[Image], categories: Mapping[int, str], *, score_threshold: float) -> dict[str, Any]:
    """Makes a COCO-format document of what the reference found.

    The reference itself reaches an AP of 1 on it, but for objects that nobody can find: masks without a pixel.

    Args:
        images: of each its id, (H, W) in pixels, and the reference's COCO result dictionaries, as `Detections.to_coco`
            gives them; taken one after the other.
        categories: the name of each category id.
        score_threshold: results with this score or a higher one become objects.

    Returns:
        What `read_truth` gives of a file. An object's area, in pixels, is that of its mask, or of its box where it has
        none: keypoints of a box's area are scored more kindly than those of a mask's, which is smaller.

    Raises:
        UsageError: a result of another image, of a category that is not listed, or without a box.
        DatasetError: no image or no category, an id twice, or a box that is none.
    """
    entries: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for identity, (height, width), results in images:
        entries.append({"id": identity, "height": height, "width": width})
        for result in results:
            if result["image_id"] != identity:
                refuse("results", f"results of image {identity}", Described(f"one of image {result['image_id']}"))
            if result["score"] >= score_threshold:
                objects.append(_object(result, categories))
    document = {
        "images": entries,
        "categories": [{"id": identity, "name": name} for identity, name in categories.items()],
        "annotations": objects,
    }
    return checked_truth(document, name="the reference's detections")


def _object(result: Mapping[str, Any], categories: Mapping[int, str]) -> dict[str, Any]:
    if result["category_id"] not in categories:
        refuse("categories", "all of the results'", Described(f"none for {result['category_id']}"))
    if "bbox" not in result:
        raise UsageError("results: expected bbox in each, got one without", "take them from Detections.to_coco")
    entry = {key: value for key, value in result.items() if key != "score"}
    if "segmentation" in entry:
        entry["area"] = pixels(entry["segmentation"])
    return entry
