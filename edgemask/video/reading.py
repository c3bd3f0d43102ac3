"""Frames of videos and cameras, as uint8 RGB."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import number, refuse, whole
from edgemask.video.opening import (
    check_frame_size,
    import_av,
    is_endless,
    opened,
    picture_stream,
    refuse_because,
    refuse_video,
    shown,
)

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Pixels = NDArray[np.uint8]

_CUT_SECONDS = 1.0  # a video may end so much before the time that its header says
_USUAL_RATE, _HIGHEST_RATE = 25.0, 1000.0  # frames a second: of a source that does not say, and that can be meant
_MICROSECONDS = 1_000_000
_MOST = 1_000_000_000  # seconds, and frames to leave out


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture of a video.

    Args:
        pixels: uint8 [H, W, 3] RGB, upright.
        number: 0 for the first frame of the source, or the first one from `start` on.
        time: seconds from the beginning of the source.
    """

    pixels: Pixels
    number: int
    time: float


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video file says about itself.

    Args:
        frames: how many, where it says so.
        rate: frames a second, on the average.
        size: (H, W) of the first frame, upright.
        duration: seconds, where it says so.
    """

    frames: int | None
    rate: float
    size: tuple[int, int]
    duration: float | None


def read_frames(
    source: str | os.PathLike[str], *, every: int = 1, start: float | None = None, stop: float | None = None
) -> Iterator[Pixels]:
    """Yields the frames of a video or camera as uint8 [H, W, 3] RGB; `Video.frames` tells their times too.

    Args:
        source: as for `Video`.
        every: takes each n-th frame.
        start: seconds from the beginning; earlier frames are left out.
        stop: seconds from the beginning, where it ends.

    Raises:
        ImageError, DependencyMissing, UsageError: as `Video` and `Video.frames` do, from the first frame on.
    """
    with Video(source) as video:
        for frame in video.frames(every=every, start=start, stop=stop):
            yield frame.pixels


def video_facts(path: str | os.PathLike[str]) -> VideoFacts:
    """Reads what a video file says about itself, and its first frame.

    Raises:
        ImageError, DependencyMissing: as `Video` and `Video.frames` do.
    """
    with Video(path) as video:
        height, width = next(video.frames()).pixels.shape[:2]
        return VideoFacts(video.frame_count, video.rate, (height, width), video.duration)


class Video:
    """An opened video file, camera or stream; a context manager. Sound is left out.

    Frames are turned upright by the display matrix, as images are by their EXIF orientation. Pixels that are not square
    stay as they are. At most a few frames are in memory. Of a camera or an address, damaged parts are left out.

    Args:
        source: a path; `camera:0` or `/dev/video0`, a camera of Video4Linux; an http, https or rtsp address. Nothing
            but such an address makes it go online.

    Attributes:
        rate: frames a second, on the average; 25 where nobody says.
        frame_count: how many frames, where the file says so.
        duration: seconds, where the file says so.

    Raises:
        ImageError: no such file or camera, no video of a known kind, damaged, without pictures, or of frames of more
            than 65 million pixels.
        UsageError: an address of another scheme.
        DependencyMissing: PyAV is not installed.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        self._source = os.fspath(source)
        self._live = is_endless(self._source)
        self._library = import_av()
        self._rotation: int | None = None  # of the frames so far, and their display matrix
        self._matrix: NDArray[np.int32] | None = None
        with contextlib.ExitStack() as opening:
            self._container = opening.enter_context(opened(self._source))
            self._stream = picture_stream(self._container, self._source)
            self._closing = opening.pop_all()
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        self.rate = rate if 0 < rate <= _HIGHEST_RATE else _USUAL_RATE
        self.frame_count = self._stream.frames or None
        length = None if self._live else self._container.duration
        self.duration = None if length is None else length / _MICROSECONDS

    def frames(self, *, every: int = 1, start: float | None = None, stop: float | None = None) -> Iterator[Frame]:
        """Yields frames in the order of their times, once.

        Args:
            every: takes each n-th frame, the first one from `start` on included.
            start: seconds from the beginning; earlier frames are left out. Cameras and addresses have none.
            stop: seconds from the beginning, where it ends.

        Raises:
            ImageError: the source is damaged, cut, or gives no frame, or the camera or server stopped to answer.
            UsageError: a number that cannot be meant.
        """
        whole(1, _MOST)("every", every)
        for name, seconds in (("start", start), ("stop", stop)):
            if seconds is not None:
                number(0, _MOST)(name, seconds)
        if start is not None and self._live:
            refuse("start", "None for a camera or an address", start)
        if start:
            self._seek(start)
        taken = 0
        for time, frame in self._timed():
            if start is not None and time < start:
                continue
            if stop is not None and time >= stop:
                break
            if taken % every == 0:
                yield Frame(self._upright(frame), taken, time)
            taken += 1
        if not taken:
            where = "it" if start is None and stop is None else "that time"
            refuse_video(self._source, f"there is no frame in {where}")

    def close(self) -> None:
        """Lets go of the file or camera; a second call does nothing."""
        self._closing.close()

    def __enter__(self) -> Self:
        """Gives the video itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of the file or camera."""
        self.close()

    def _seek(self, start: float) -> None:
        """Goes to a frame before `start` from which decoding can begin; what cannot seek is read from where it is."""
        origin = self._container.start_time or 0
        with contextlib.suppress(self._library.FFmpegError):
            self._container.seek(origin + int(start * _MICROSECONDS))

    def _timed(self) -> Iterator[tuple[float, "VideoFrame"]]:
        """Frames with the seconds from the beginning, which never go back."""
        # AVI has a rate and no times: those that FFmpeg makes up are wrong where frames are not stored in their order.
        base = None if self._container.format.name == "avi" else self._stream.time_base
        begin = None if self._live or self._stream.start_time is None else self._stream.start_time
        time = -1 / self.rate
        for frame in self._decoded():
            if frame.pts is None or not base:
                time += 1 / self.rate
            else:
                begin = frame.pts if begin is None else begin
                time = max(time, float((frame.pts - begin) * base))
            yield max(0.0, time), frame
        # Some containers end in silence where they were cut. Sound may go on for longer than the pictures.
        if self.duration is not None and len(self._container.streams) == 1:
            missing = self.duration - time
            if missing > _CUT_SECONDS + 2 / self.rate:
                refuse_video(self._source, f"it ends after {time:.1f} of {self.duration:.1f} seconds: it is cut")

    def _decoded(self) -> Iterator["VideoFrame"]:
        packets = self._container.demux(self._stream)
        is_cut = was_damaged = False
        while (packet := self._next(packets)) is not None:
            is_cut = packet.is_corrupt if packet.size else is_cut
            try:
                frames = packet.decode()
            except self._library.FFmpegError as error:
                if not self._live:
                    refuse_because(self._source, error)
                continue
            for frame in frames:
                if frame.is_corrupt and not was_damaged:
                    was_damaged = True
                    logging.getLogger("edgemask").warning("%s: a part of it is damaged", shown(self._source))
                yield frame
        if is_cut and not self._live:
            refuse_video(self._source, "its last frame is cut")

    def _next(self, packets: "Iterator[Packet[VideoStream]]") -> "Packet[VideoStream] | None":
        try:
            return next(packets, None)
        except self._library.FFmpegError as error:
            refuse_because(self._source, error)

    def _upright(self, frame: "VideoFrame") -> Pixels:
        check_frame_size(frame.width, frame.height, self._source)
        pixels = cast("Pixels", frame.to_ndarray(format="rgb24", threads=1))
        # PyAV's side data and its frame hold each other: a frame that is asked for it stays until the next collection.
        if frame.rotation != self._rotation:
            side_data: Any = frame.side_data
            matrix = side_data.get("DISPLAYMATRIX")
            self._rotation = frame.rotation
            self._matrix = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)
        return np.ascontiguousarray(pixels if self._matrix is None else turned(pixels, self._matrix))


def turned(pixels: Pixels, matrix: NDArray[np.int32]) -> Pixels:
    """Turns and mirrors a frame as its display matrix says, to the nearest of the eight ways that keep pixels.

    Args:
        pixels: uint8 [H, W, 3].
        matrix: int32 [9], a b u c d v x y w of ISO/IEC 14496-12: column p and row q of the frame are shown at column
            a p + c q and row b p + d q.

    Returns:
        A view of the pixels, uint8 [H, W, 3] or [W, H, 3].
    """
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
