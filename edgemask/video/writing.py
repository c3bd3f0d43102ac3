"""Frames to a video file, whole or not at all."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from edgemask.checks import Described, number, printable, refuse, several, whole
from edgemask.errors import OutputError, UsageError
from edgemask.files import creating
from edgemask.images import check_array
from edgemask.processors import thread_count
from edgemask.video.opening import import_av

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# The first one that this FFmpeg has. Near what the eye sees, at the speed that a small processor can spare.
_ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libopenh264": {"b": "6000000"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(4 * 118)},  # FFmpeg counts quality in 118ths
}
_TICK = Fraction(1, 60_000)  # exact at 24, 25, 30, 50, 60 and 60/1.001 Hz; MPEG-4 takes none finer than 1/65535
_LONGEST_SIDE = 16_384  # of H.264 and MPEG-4
_MOST_RATE = 1000.0
_BT709, _LIMITED = 1, 1  # as ITU-T H.273 numbers them: what players expect, and are told


class VideoWriter:
    """Writes an MP4 of H.264, or of MPEG-4 where no H.264 encoder is here; a context manager.

    The file appears when the block ends well; after an exception, what was there before is as it was.

    Args:
        path: where to.
        size: (H, W) of the frames. The codecs take even sides: an odd one repeats its last row or column.
        rate: frames a second, of those that are written without a time.

    Raises:
        OutputError: the file cannot be written.
        UsageError: a size or rate that cannot be meant, or, in the end, no frame.
        DependencyMissing: PyAV is not installed.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], rate: float | Fraction) -> None:
        self._path = Path(path)
        self._size = several(whole(1, _LONGEST_SIDE), 2, 2)("size", size)
        self._rate = Fraction(number(1e-3, _MOST_RATE)("rate", rate)).limit_denominator(1001)
        self._library = import_av()
        self._writing = self._written()
        self._ticks = -1  # of the last frame

    def __enter__(self) -> Self:
        """Opens the file."""
        self._writing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the file, or removes what there is of it."""
        self._writing.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        options = {"movflags": "+faststart"}  # a browser shows it before it has all of it
        with (
            creating(self._path) as temporary,
            self._library.open(str(temporary), "w", format="mp4", options=options) as self._container,
        ):
            self._stream = self._add_stream(self._container)
            yield
            if self._ticks < 0:
                raise UsageError(f"{self._path}: a video needs a frame", "write one before the block ends")
            self._encode(None)

    def write(self, pixels: NDArray[np.uint8], time: float | None = None) -> None:
        """Adds a frame.

        Args:
            pixels: uint8 [H, W, 3] RGB, of the size of the video.
            time: seconds from the beginning; one that is not behind the last frame is put just behind it. None: by the
                rate.

        Raises:
            UsageError: an array of another type or shape, or a time that cannot be meant.
            OutputError: the file cannot be written.
        """
        if check_array(pixels).shape[:2] != self._size:
            refuse("pixels", f"{self._size} (H, W) as the frames before", Described(str(pixels.shape[:2])))
        ticks = self._ticks + 1 if self._ticks < 0 else self._ticks + round(1 / (self._rate * _TICK))
        if time is not None:
            ticks = round(number(0, 1e9)("time", time) / _TICK)
        self._ticks = max(ticks, self._ticks + 1)
        height, width = self._size
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        picture = self._library.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame = picture.reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED, interpolation="AREA", threads=1
        )
        frame.pts, frame.time_base = self._ticks, _TICK
        self._encode(frame)

    def _add_stream(self, container: "OutputContainer") -> "VideoStream":
        for name, options in _ENCODERS.items():
            try:
                self._library.Codec(name, "w")
            except self._library.codec.codec.UnknownCodecError:
                continue
            stream = cast("VideoStream", container.add_stream(name, rate=self._rate, options=options))
            break
        else:
            raise OutputError(f"cannot write {self._path}: no video encoder in PyAV", "pip install 'edgemask[video]'")
        height, width = self._size
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        context: Any = stream.codec_context
        context.time_base = _TICK
        context.thread_count = thread_count()
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return stream

    def _encode(self, frame: "VideoFrame | None") -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except self._library.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            reason = printable(error.strerror or str(error))
            raise OutputError(
                f"cannot write {self._path}: {reason}", "free some space or name another place"
            ) from error
