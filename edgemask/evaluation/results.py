"""COCO result dictionaries, checked before the library reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgemask.checks import Described, refuse
from edgemask.errors import DatasetError, UsageError

SCORED = {"boxes": "bbox", "masks": "segmentation", "keypoints": "keypoints"}  # what is scored of a result, by task


def check_results(
    results: Sequence[Mapping[str, Any]], task: str, document: Mapping[str, Any], *, name: str = "the annotations"
) -> None:
    """Checks that results have what a task scores and belong to a document.

    Args:
        results: COCO result dictionaries.
        task: "boxes", "masks" or "keypoints".
        document: what `read_truth` gave.
        name: how messages call the document.

    Raises:
        DatasetError: results of images that the document does not list.
        UsageError: a result lacks a field, or has another size or number of keypoints than the document.
    """
    scored = SCORED[task]
    for field in ("image_id", "category_id", "score", scored):
        if any(field not in result for result in results):
            remedy = f"leave out {task}" if field == scored else "take them from Detections.to_coco"
            raise UsageError(f"results: expected {field} in each, got one without", remedy)
    images = {entry["id"]: entry for entry in document["images"]}
    if foreign := {result["image_id"] for result in results} - images.keys():
        problem = f"{name} does not list the images {sorted(foreign)[:5]}"
        raise DatasetError(problem, "give the annotations of these images")
    if not results:
        return
    _numbers("score", [result["score"] for result in results], ())
    if task == "boxes":
        _numbers("bbox", [result["bbox"] for result in results], (4,))
    elif task == "masks":
        _check_sizes(results, images)
    elif document["annotations"]:
        width = len(document["annotations"][0]["keypoints"])
        _numbers("keypoints", [result["keypoints"] for result in results], (width,))


def _numbers(field: str, values: Sequence[Any], shape: tuple[int, ...]) -> None:
    expected = f"{shape[0]} finite numbers" if shape else "a finite number"
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):  # not numbers, or not as many everywhere
        refuse(f"results: {field}", expected, Described("something else"))
    if array.shape[1:] != shape:
        refuse(f"results: {field}", expected, Described(f"{list(array.shape[1:])}"))
    if not np.isfinite(array).all():
        rows = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        refuse(f"results: {field}", expected, values[int(np.argmin(rows))])


def _check_sizes(results: Sequence[Mapping[str, Any]], images: Mapping[int, Mapping[str, Any]]) -> None:
    for result in results:
        rle, image = result["segmentation"], images[result["image_id"]]
        if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), str | bytes):
            refuse("results: segmentation", "compressed run lengths", rle)
        size = [image["height"], image["width"]]
        if list(rle.get("size", ())) != size:
            refuse(f"results: size of a segmentation of image {image['id']}", f"{size} (H, W)", rle.get("size"))
