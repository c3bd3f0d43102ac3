"""Fast R-CNN mode: a model without RPN looks where the tracker has its objects, and finds them where they are now.

    python samples/fast_rcnn_with_tracker.py MODEL.onnx FAST.onnx clip.mp4|camera:0|rtsp://... [EVERY]

FAST.onnx is the same model, exported by `edgemask export ... --proposals input`. MODEL.onnx searches each EVERYth frame
whole, 10 if left out, for objects that have come; a proposal finds only what it overlaps.
"""

import sys

import numpy as np
from video_with_tracker import SCORE, OverlapTracker

import edgemask
from edgemask.video import Video

MARGIN = 0.1  # of a box's sides, for what moved since the last frame


def grown(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Boxes [N, 4] xyxy with a margin on each side, within the image of (H, W)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    wider = boxes + MARGIN * np.hstack([-sides, sides])
    return wider.clip(0, [*image_size[::-1], *image_size[::-1]]).astype(np.float32)


def main(model: str, fast_model: str, source: str, every: str = "10") -> None:
    tracker = OverlapTracker()
    with edgemask.load(model) as whole, edgemask.load(fast_model) as fast, Video(source) as video:
        for frame in video.frames(stop=60):
            searched = frame.number % int(every) == 0
            if searched:
                found = whole.predict(frame.pixels)
            else:
                found = fast.predict(frame.pixels, proposals=grown(tracker.last.xyxy, frame.pixels.shape[:2]))
            tracked = tracker.update(found[found.scores >= SCORE].to_supervision(whole.spec.class_names))
            print(
                f"frame {frame.number}, {'searched' if searched else 'followed'}:",
                *(f"#{n}" for n in tracked.tracker_id),
            )
    print(f"{tracker.count} objects")


if __name__ == "__main__":
    main(*sys.argv[1:])
