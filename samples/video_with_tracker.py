"""Follows objects through a video, a camera or a stream: each keeps its number from frame to frame.

    python samples/video_with_tracker.py MODEL.onnx clip.mp4|camera:0|rtsp://... [SECONDS]

`trackers.ByteTrackTracker()`, from the package trackers, can stand in for the tracker below: it has the same `update`,
and bridges gaps too.
"""

import sys

import numpy as np
import supervision as sv
from scipy.optimize import linear_sum_assignment

import edgemask
from edgemask.video import read_frames

SCORE, OVERLAP = 0.6, 0.3


class OverlapTracker:
    """Gives each object the number of the one in the last frame whose box it overlaps most, all pairs together."""

    def __init__(self) -> None:
        self.count = 0
        self.last = sv.Detections(xyxy=np.zeros((0, 4), np.float32), tracker_id=np.zeros(0, int))

    def update(self, found: sv.Detections) -> sv.Detections:
        """The same objects, numbered by `tracker_id`."""
        overlaps = sv.box_iou_batch(self.last.xyxy, found.xyxy)
        found.tracker_id = np.full(len(found), -1)
        for old, new in zip(*linear_sum_assignment(overlaps, maximize=True), strict=True):
            if overlaps[old, new] >= OVERLAP:
                found.tracker_id[new] = self.last.tracker_id[old]
        for new in np.flatnonzero(found.tracker_id < 0):
            self.count += 1
            found.tracker_id[new] = self.count
        self.last = found
        return found


def main(model: str, source: str, seconds: str = "60") -> None:
    tracker, numbers = OverlapTracker(), set()
    with edgemask.load(model) as detector:
        frames = read_frames(source, stop=float(seconds))
        for number, (_, found) in enumerate(detector.stream(frames)):  # frames are read while others are run
            sure = found[found.scores >= SCORE]
            tracked = tracker.update(sure.to_supervision(detector.spec.class_names))
            for box, track, name in zip(tracked.xyxy, tracked.tracker_id, tracked.data["class_name"], strict=True):
                print(f"frame {number}: #{track} {name} at", *box.round().astype(int))
            numbers.update(tracked.tracker_id.tolist())
    print(f"{len(numbers)} objects, by {detector.device}")


if __name__ == "__main__":
    main(*sys.argv[1:])
