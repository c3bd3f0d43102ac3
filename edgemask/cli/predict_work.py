"""The work of `edgemask predict`: images and frames through a detector, in order."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemask.cli.answers import note
from edgemask.cli.predict_outputs import (
    PredictedImage,
    PredictedVideo,
    ResultsFile,
    count_of,
    counts,
    drawn,
    drawn_frame,
)
from edgemask.cli.predict_sources import Source
from edgemask.detections import Detections
from edgemask.files import write_image
from edgemask.progress import progress
from edgemask.semantic import SemanticMap
from edgemask.video import Video, VideoWriter
from edgemask.video.opening import shown

if TYPE_CHECKING:
    from edgemask.cluster import ClusterDetector
    from edgemask.runtimes import Detector

Job = tuple[Source, Path | None]
Result = tuple[NDArray[np.uint8], Detections | SemanticMap]


@dataclass(slots=True)
class Work:
    """Works on sources and keeps what came of them.

    Args:
        detector: the model, in this process or on a cluster; videos are for this process.
        ids: image ids for the COCO results, of images and frames in their order.
        score: the least that is drawn.
        results: where COCO results go.
        boxes: proposals, as `Detector.stream` takes them.
        every: of a video, each n-th frame is taken.
        stop: seconds after which a video ends.
    """

    detector: "Detector | ClusterDetector"
    ids: Iterator[int]
    score: float
    results: ResultsFile | None
    boxes: Iterator[Any] | None
    every: int
    stop: float | None
    images: list[PredictedImage] = field(default_factory=list)
    videos: list[PredictedVideo] = field(default_factory=list)

    def all_of(self, jobs: Sequence[Job]) -> None:
        """Works on sources in their order.

        Args:
            jobs: each source with the path of its annotated copy.
        """
        for is_video, group in itertools.groupby(jobs, key=lambda job: job[0].is_video):
            if is_video:
                for source, copy in group:
                    self._video(source, copy)
            else:
                self._images(list(group))

    def _images(self, jobs: Sequence[Job]) -> None:
        """Works on neighbouring images: the next ones are read and run while one is drawn."""
        paths = [source.path for source, _ in jobs]
        boxes = None if self.boxes is None else itertools.islice(self.boxes, len(paths))
        with closing(self.detector.stream(paths, proposals=boxes)) as stream:
            for (source, copy), result in progress(zip(jobs, stream, strict=True), "predict", len(paths)):
                self._image(source, copy, *result)

    def _image(
        self, source: Source, copy: Path | None, pixels: NDArray[np.uint8], found: Detections | SemanticMap
    ) -> None:
        identity = next(self.ids)
        names = self.detector.spec.class_names
        if copy is not None:
            write_image(copy, drawn(pixels, found, names, self.score))
        self._keep(found, identity, {"file_name": source.path.name})
        written = None if copy is None else str(copy)
        self.images.append(PredictedImage(source.name, identity, *found.image_size, count_of(found), written))
        note(f"{source.name}: {counts(found, names, self.score)}{_arrow(copy)}")

    def _video(self, source: Source, copy: Path | None) -> None:
        names = self.detector.spec.class_names
        first = size = None
        frames = objects = 0
        writer: VideoWriter | None = None
        with Video(source.name) as video, ExitStack() as writing:
            for number, time, (pixels, found) in self._frames(video):
                identity = next(self.ids)
                if first is None or size is None:
                    first, size = identity, found.image_size
                    if copy is not None:
                        writer = writing.enter_context(VideoWriter(copy, size, video.rate / self.every))
                if writer is not None:
                    writer.write(drawn_frame(pixels, found, names, self.score), time)
                self._keep(found, identity, {"file_name": source.path.name, "frame": number, "time": time})
                frames, objects = frames + 1, objects + count_of(found)
        if first is not None and size is not None:  # a video without frames is refused by its reader
            written = None if copy is None else str(copy)
            self.videos.append(PredictedVideo(shown(source.name), first, frames, *size, objects, written))
        note(f"{shown(source.name)}: {frames} frames, {objects} found{_arrow(copy)}")

    def _frames(self, video: Video) -> Iterator[tuple[int, float, Result]]:
        """Number and time of each frame, and what the detector gives for it."""
        moments: deque[tuple[int, float]] = deque()

        def pixels() -> Iterator[NDArray[np.uint8]]:
            for frame in video.frames(every=self.every, stop=self.stop):
                moments.append((frame.number, frame.time))
                yield frame.pixels

        from edgemask.runtimes import Detector

        assert isinstance(self.detector, Detector)
        total = None if video.frame_count is None or self.stop is not None else -(-video.frame_count // self.every)
        with closing(self.detector.stream(pixels())) as stream:
            for result in progress(stream, "predict", total):
                yield (*moments.popleft(), result)

    def _keep(self, found: Detections | SemanticMap, identity: int, origin: dict[str, Any]) -> None:
        if self.results is not None:
            records = found.to_coco(identity, category_ids=self.detector.spec.category_ids)
            self.results.add(record | origin for record in records)


def _arrow(copy: Path | None) -> str:
    return "" if copy is None else f" -> {copy}"
