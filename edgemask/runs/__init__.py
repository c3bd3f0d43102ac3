"""Stored runs: what a detector found on a set of images, on disk.

A device without PyTorch is judged against a file made on the workstation, and a run that was interrupted goes on where
it was. While it lasts, a run is a folder, its journal (`RunWriter`); done, it is one file (`StoredRun`).

The file, format 1.0, is a zip archive of arrays as `numpy.savez_compressed` writes: `numpy.load` opens it with
`allow_pickle=False`. Every member is an `.npy` of version 1.0 in C order, of whole numbers, floats or bools in
little-endian order, stored or deflated.

`run.npy` is a uint8 array: ASCII JSON, an object of

    format          "edgemask.run"
    format_version  "major.minor"; a reader refuses a newer major one, and ignores keys and members
                    that it does not know
    facts           kind ("pytorch", "onnx"), name, device, sha256, spec (a ModelSpec), versions, date: see RunFacts
    images          one object per image, in the order of the run:
        name        as the run called it; never used as a path
        sha256      of the bytes of the image file, hexadecimal; with the name it says which image it is
        seconds     that the prediction took
        image_size  [H, W] of the original image, pixels
        arrays      which arrays there are, out of those below
        stages      names of the stage tensors, or null

The arrays of image i, counted from 0, lie under i as six digits or more: `000000/boxes.npy`. With N detections

    boxes            float32 [N, 4] xyxy, pixels of the original image
    scores           float32 [N] in 0-1, descending
    labels           int64 [N], 1 ... C-1
    masks            float32 [N, M, M] probabilities inside the box
    keypoints        float32 [N, K, 3] of (x, y, 1), pixels of the original image
    keypoint_scores  float32 [N, K]
    label_map        uint8 [H, W], the class of every pixel, with
    score_map        float32 [H, W] in 0-1, its probability: both in place of detections, of a semantic model
    proposals        float32 [P, 4] xyxy, pixels of the original image, which the model was given
    stages/j         the j-th stage tensor, counted from 0

Of one image at most 64 MiB are deflated, the rest is stored, and all of it has at most 2 GiB; `run.npy` has at most
32 MiB. A reader refuses more before it unpacks anything.

A journal holds `journal.json` (format "edgemask.run-journal", format_version, facts) and for each image one archive of
the same kind, `entry-<64 digits>.npz`, not deflated, with the arrays at the top and `entry.npy` in place of `run.npy`:
the object `image`, and `run`, a digest of the facts.
"""

from edgemask.runs.entries import RunEntry, file_digest
from edgemask.runs.facts import RunFacts
from edgemask.runs.journal import RunWriter
from edgemask.runs.records import FORMAT_VERSION
from edgemask.runs.stored import StoredRun

__all__ = [
    "FORMAT_VERSION",
    "RunEntry",
    "RunFacts",
    "RunWriter",
    "StoredRun",
    "file_digest",
]
