"""What may be opened as a video, and opening it."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edgemask.checks import printable
from edgemask.errors import DependencyMissing, ImageError, UsageError
from edgemask.images import PIXEL_LIMIT
from edgemask.processors import thread_count

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Few containers, all in daily use. Playlists are not among them: FFmpeg opens whatever they name, and a file of one
# line could reach the network.
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
_FILE_FORMATS = "asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts"
_SCHEMES = ("http", "https", "rtsp", "rtsps")
_PROTOCOLS = "crypto,data,http,httpproxy,https,rtp,srtp,tcp,tls,udp"
_STREAM_FORMATS = f"{_FILE_FORMATS},hls,mjpeg,mpjpeg,rtp,rtsp,sdp"
_CAMERA = re.compile(r"camera:(\d{1,3})|/dev/video(\d{1,3})")

_ANSWER_SECONDS = 20.0  # that a camera or a server may take, to open and for each part
_DECODER_THREADS = 2  # each holds a frame, and the model wants the processors


def is_endless(source: str) -> bool:
    """Whether a source is a camera or an address, which need not end, in place of a file."""
    return _CAMERA.fullmatch(source) is not None or "://" in source


def opened(source: str) -> "InputContainer":
    """Opens a file, a camera or an address.

    Raises:
        ImageError: no such file or camera, or no video of a known kind.
        UsageError: an address of another scheme.
        DependencyMissing: PyAV is not installed.
    """
    library = import_av()
    place, arguments = _place(source)
    # Texts in a file that are not UTF-8 must not stop anybody; from PyAV 19 on they never do.
    if int(library.__version__.split(".")[0]) < 19:
        arguments["metadata_errors"] = "replace"
    try:
        container: InputContainer = library.open(place, "r", timeout=_ANSWER_SECONDS, **arguments)
    except library.FFmpegError as error:
        refuse_because(source, error)
    return container


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """What FFmpeg opens, and the arguments of `av.open` that keep it to that."""
    if camera := _CAMERA.fullmatch(source):
        return f"/dev/video{camera[1] or camera[2]}", {"format": "v4l2"}
    if is_endless(source):
        if source.partition("://")[0].lower() not in _SCHEMES:
            raise UsageError(f"{shown(source)}: no address that can be read", f"expected {', '.join(_SCHEMES)}")
        return source, {"options": {"protocol_whitelist": _PROTOCOLS, "format_whitelist": _STREAM_FORMATS}}
    if not Path(source).is_file():
        refuse_video(source, "it is a folder" if Path(source).is_dir() else "there is no such file")
    # An absolute path: FFmpeg takes the word before a colon for a protocol.
    return os.path.abspath(source), {"options": {"protocol_whitelist": "file", "format_whitelist": _FILE_FORMATS}}


def picture_stream(container: "InputContainer", source: str) -> "VideoStream":
    """The first stream of moving pictures, ready to be decoded.

    Raises:
        ImageError: there is none, it is of an unknown codec, or its frames have more than 65 million pixels.
    """
    covers = import_av().stream.Disposition.attached_pic
    found = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not found:
        refuse_video(source, "it is sound only" if container.streams.audio else "no moving pictures are found in it")
    context: Any = found[0].codec_context
    if context is None:
        refuse_video(source, "nothing here can decode it")
    check_frame_size(context.width, context.height, source)
    if not is_endless(source) and _end_of(found[0]) > os.path.getsize(source):
        refuse_video(source, "it is cut")
    context.options = {"max_pixels": str(PIXEL_LIMIT)}
    context.thread_count = min(_DECODER_THREADS, thread_count())
    context.thread_type = "SLICE" if is_endless(source) else "AUTO"  # threads by frame are late by a frame each
    return found[0]


def _end_of(stream: "VideoStream") -> int:
    """Bytes at which the last picture ends by the file's own index; of a file without one 0."""
    return max((entry.pos + entry.size for entry in stream.index_entries), default=0)


def check_frame_size(width: int, height: int, source: str) -> None:
    """Refuses frames that are too large.

    Raises:
        ImageError: more than 65 million pixels.
    """
    if width * height > PIXEL_LIMIT:
        refuse_video(source, f"expected at most {PIXEL_LIMIT} pixels a frame, got {width} x {height}")


def refuse_because(source: str, error: Exception) -> NoReturn:
    """Raises what an error of FFmpeg means to the user.

    Raises:
        ImageError: the source cannot be read.
        MemoryError: as it was.
    """
    if isinstance(error, MemoryError):
        raise error
    reason = printable(getattr(error, "strerror", None) or str(error))
    library = import_av()
    if isinstance(error, library.InvalidDataError | library.ArgumentError):  # the latter of a format not allowed
        reason = f"it is cut, damaged, or none of {', '.join(VIDEO_SUFFIXES)}"
    refuse_video(source, reason, error)


def refuse_video(source: str, reason: str, cause: Exception | None = None) -> NoReturn:
    """Raises ImageError."""
    raise ImageError(f"{shown(source)}: cannot be read as a video: {reason}") from cause


def shown(source: str) -> str:
    """A source as it may be printed: an address without the name, password and query that are in it."""
    scheme, sign, rest = source.partition("://")
    if not sign:
        return printable(source)
    place, slash, path = re.split(r"[?#]", rest)[0].partition("/")
    return printable(f"{scheme}://{place.rpartition('@')[2]}{slash}{path}")


def import_av() -> Any:
    """Imports PyAV.

    Raises:
        DependencyMissing: it is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "videos and cameras need the package av, which is not installed", "pip install 'edgemask[video]'"
        ) from error
    return av
