"""Videos: what comes out of a file, how broken ones are refused, and files that appear whole or not at all."""

import itertools
import logging
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemask.errors import DependencyMissing, ImageError, OutputError, UsageError
from edgemask.video import Video, VideoFacts, VideoWriter, is_endless, opening, read_frames, video_facts, writing
from edgemask.video.reading import turned

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'edgemask[video]'")

SIZE = (48, 64)
ROUNDING = 6  # grey levels that yuv420p and a compression near the eye's limit may move a flat colour


def grey(level: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.full((*size, 3), level, np.uint8)


def write_clip(
    path: Path,
    frames: list[NDArray[np.uint8]] | None = None,
    *,
    codec: str = "mpeg4",
    times: list[int] | None = None,
    rotation: tuple[int, bool] | None = None,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a video with PyAV itself: 6 greys at 10 Hz where nothing else is said; times in milliseconds."""
    frames = [grey(40 * index + 20) for index in range(6)] if frames is None else frames
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=10, options={"qmax": "4"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        tick = Fraction(1, 10) if path.suffix == ".avi" else Fraction(1, 1000)  # AVI knows no times, only a rate
        stream.codec_context.time_base = tick
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round((index / 10 if times is None else times[index] / 1000) / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def noise(count: int) -> list[NDArray[np.uint8]]:
    """Frames that compress badly: a file of them is cut within its pictures, not within its header."""
    return list(np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8))


def quarters(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Four quarters of their own grey: 40 top left, 90 top right, 140 bottom left, 190 bottom right."""
    pixels = grey(40, size)
    height, width = size
    pixels[: height // 2, width // 2 :] = 90
    pixels[height // 2 :, : width // 2] = 140
    pixels[height // 2 :, width // 2 :] = 190
    return pixels


def corners(pixels: NDArray[np.uint8]) -> list[int]:
    """The grey in the middle of each quarter, to the nearest of those that `quarters` uses, by rows."""
    height, width = pixels.shape[:2]
    levels = np.array([40, 90, 140, 190])
    points = itertools.product((height // 4, 3 * height // 4), (width // 4, 3 * width // 4))
    return [int(levels[np.abs(levels - float(pixels[y, x].mean())).argmin()]) for y, x in points]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.mov"])
def test_frames_come_in_order_as_rgb(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name)
    frames = list(read_frames(path))
    assert [(frame.dtype, frame.shape, frame.flags.c_contiguous) for frame in frames] == [
        (np.uint8, (48, 64, 3), True)
    ] * 6
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx([20, 60, 100, 140, 180, 220], abs=ROUNDING)
    facts = video_facts(path)
    assert facts.size == SIZE
    assert facts.rate == pytest.approx(10, abs=0.1)
    assert facts.duration == pytest.approx(0.6, abs=0.11)
    assert facts.frames in (None, 6)


def test_times_are_those_of_the_file(tmp_path: Path) -> None:
    """A phone's frame rate varies."""
    path = write_clip(tmp_path / "a.mp4", times=[0, 100, 150, 600, 610, 900])
    with Video(path) as video:
        found = [(frame.number, round(frame.time, 3)) for frame in video.frames()]
    assert found == [(0, 0.0), (1, 0.1), (2, 0.15), (3, 0.6), (4, 0.61), (5, 0.9)]


@pytest.mark.parametrize(
    ("options", "numbers", "times"),
    [
        ({"every": 2}, [0, 2, 4], [0.0, 0.2, 0.4]),
        ({"every": 100}, [0], [0.0]),
        ({"start": 0.2}, [0, 1, 2, 3], [0.2, 0.3, 0.4, 0.5]),
        ({"stop": 0.3}, [0, 1, 2], [0.0, 0.1, 0.2]),
        ({"every": 2, "start": 0.1, "stop": 0.5}, [0, 2], [0.1, 0.3]),
    ],
)
def test_a_part_is_taken(tmp_path: Path, options: dict[str, Any], numbers: list[int], times: list[float]) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with Video(path) as video:
        found = [(frame.number, round(frame.time, 3)) for frame in video.frames(**options)]
    assert found == list(zip(numbers, times, strict=True))
    assert len(list(read_frames(path, **options))) == len(numbers)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"every": 0}, "every: expected a whole number"), ({"start": -1}, "start: expected"), ({"stop": "1"}, "stop: ex")],
)
def test_a_part_that_cannot_be_meant(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match=words):
        next(read_frames(path, **options))


def test_a_time_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no frame in that time"):
        next(read_frames(write_clip(tmp_path / "a.mp4"), start=5))


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ((0, False), [40, 90, 140, 190]),
        ((90, False), [90, 190, 40, 140]),  # counter-clockwise
        ((180, False), [190, 140, 90, 40]),
        ((270, False), [140, 40, 190, 90]),
        ((0, True), [90, 40, 190, 140]),
    ],
)
def test_frames_stand_upright(tmp_path: Path, rotation: tuple[int, bool], expected: list[int]) -> None:
    path = write_clip(tmp_path / "a.mp4", [quarters()], rotation=rotation)
    (frame,) = read_frames(path)
    assert corners(frame) == expected
    assert frame.shape[:2] == video_facts(path).size == (SIZE if rotation[0] % 180 == 0 else SIZE[::-1])


@pytest.mark.parametrize("parts", list(itertools.product([1, -1], [1, -1], [False, True])))
def test_each_pixel_goes_where_the_matrix_says(parts: tuple[int, int, bool]) -> None:
    """The definition, pixel by pixel, for all eight matrices: (p, q) is shown at (a p + c q, b p + d q), moved to 0."""
    first, second, transposed = parts
    a, b, c, d = (0, first, second, 0) if transposed else (first, 0, 0, second)
    height, width = 2, 3
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    places = {(p, q): (a * p + c * q, b * p + d * q) for p in range(width) for q in range(height)}
    left, top = (min(place[axis] for place in places.values()) for axis in (0, 1))
    found = turned(pixels, np.array([a, b, 0, c, d, 0, 0, 0, 1], np.int32) * 65536)
    assert found.shape == ((width, height, 3) if transposed else (height, width, 3))
    for (p, q), (x, y) in places.items():
        assert (found[y - top, x - left] == pixels[q, p]).all()


def test_text_that_is_not_utf8_does_not_stop_it(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", metadata={"title": "xxxxxxxx"})
    data = path.read_bytes()
    assert data.count(b"xxxxxxxx") == 1
    path.write_bytes(data.replace(b"xxxxxxxx", b"caf\xe9\xff\xfe\xfa\xfb"))
    assert len(list(read_frames(path))) == 6


def test_colours_are_right(tmp_path: Path) -> None:
    """Tagged as BT.709 in limited range, and read as tagged."""
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128)]
    with VideoWriter(tmp_path / "a.mp4", SIZE, 5) as writer:
        for colour in colours:
            writer.write(np.full((*SIZE, 3), colour, np.uint8))
    for colour, frame in zip(colours, read_frames(tmp_path / "a.mp4"), strict=True):
        assert np.abs(frame.mean((0, 1)) - colour).max() < ROUNDING


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_a_cut_file_is_refused(tmp_path: Path, name: str) -> None:
    """At once where it has an index, else after the frames that it has; Matroska says nothing, but for its duration."""
    times = [500 * index for index in range(20)]
    options = {"movflags": "+faststart"} if name == "a.mp4" else {}
    path = write_clip(tmp_path / name, noise(20), times=times if name != "a.avi" else None, options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = read_frames(path)
    with pytest.raises(ImageError, match="cut"):
        assert all(frame.shape == (48, 64, 3) for frame in frames)


def test_a_file_that_is_cut_between_two_frames_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noise(12), options={"movflags": "+faststart"})
    with av.open(str(path)) as container:
        ends = [entry.pos + entry.size for entry in container.streams.video[0].index_entries]
    whole = path.read_bytes()
    path.write_bytes(whole[: ends[5]])
    with pytest.raises(ImageError, match="it is cut"):
        list(read_frames(path))
    path.write_bytes(whole)
    assert len(list(read_frames(path))) == 12


def test_times_of_avi_are_those_of_its_rate(tmp_path: Path) -> None:
    """Whatever order its frames are stored in."""
    path = write_clip(tmp_path / "a.avi", codec="libx264" if "libx264" in av.codecs_available else "mpeg4")
    with Video(path) as video:
        assert [round(frame.time, 3) for frame in video.frames()] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("rtsp://user:secret@host:554/live?token=secret", "rtsp://host:554/live"),
        ("http://user@host#secret", "http://host"),
        ("a@b.mp4", "a@b.mp4"),
    ],
)
def test_what_is_secret_in_an_address_is_not_printed(source: str, text: str) -> None:
    assert opening.shown(source) == text
    with pytest.raises(ImageError) as caught:
        opening.refuse_video(source, "it does not answer")
    assert "secret" not in str(caught.value)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    header = write_clip(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(header[: len(header) // 2])
    for name in ("empty.mp4", "noise.mp4"):
        with pytest.raises(
            ImageError, match=rf"{name}: cannot be read as a video: it is cut, damaged, or none of \.avi"
        ):
            next(read_frames(tmp_path / name))
    with pytest.raises(ImageError, match="no moving pictures are found"):
        next(read_frames(tmp_path / "half.mp4"))
    with pytest.raises(ImageError, match="there is no such file"):
        next(read_frames(tmp_path / "missing.mp4"))
    with pytest.raises(ImageError, match="it is a folder"):
        next(read_frames(tmp_path))


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ImageError, match="it is sound only"):
        next(read_frames(tmp_path / "a.mp4"))


def test_large_frames_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(opening, "PIXEL_LIMIT", 64 * 48 - 1)
    with pytest.raises(ImageError, match="at most 3071 pixels a frame, got 64 x 48"):
        Video(path)


def test_a_playlist_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would open whatever it names, on this machine or on the network."""
    part = write_clip(tmp_path / "a.ts")
    for name in ("list.m3u8", "list.mp4"):
        (tmp_path / name).write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n")
        with pytest.raises(ImageError, match="none of"):
            next(read_frames(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "concat:a.ts").write_text("a name, no protocol")
    with pytest.raises(ImageError, match="none of"):
        next(read_frames("concat:a.ts"))


def test_sources_without_an_end() -> None:
    assert all(map(is_endless, ["camera:0", "/dev/video12", "rtsp://host/live", "http://host/a.mp4"]))
    assert not any(map(is_endless, ["a.mp4", "camera", "dev/video0", "/dev/video", "C:/a.mp4"]))
    for source in ("file:///etc/hostname", "concat://a", "udp://127.0.0.1:1"):
        with pytest.raises(UsageError, match="no address that can be read"):
            Video(source)


def test_a_camera_or_a_server_that_is_not_there() -> None:
    """No camera here: what one gives is not tested."""
    for source, reason in (("camera:997", "No such file"), ("http://127.0.0.1:9/a.mp4", "Connection refused")):
        with pytest.raises(ImageError, match=f"{source}: cannot be read as a video: {reason}"):
            Video(source)


def test_a_file_is_let_go_of(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")

    def is_open() -> bool:
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        return any(link.is_symlink() and os.readlink(link) == str(path) for link in links)

    frames = read_frames(path)
    next(frames)
    assert is_open()
    frames.close()  # type: ignore[attr-defined]
    assert not is_open()


def test_a_damaged_part_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_clip(tmp_path / "a.avi", noise(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING, logger="edgemask"), pytest.raises(ImageError, match="its last frame is cut"):
        list(read_frames(path))
    assert [record.getMessage() for record in caplog.records] == [f"{path}: a part of it is damaged"]


@pytest.mark.parametrize(("hidden", "codec"), [((), "h264"), (("libx264", "libopenh264"), "mpeg4")])
def test_a_video_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple[str, ...], codec: str
) -> None:
    if not hidden and not {"libx264", "libopenh264"} & av.codecs_available:
        pytest.skip("this FFmpeg has no H.264 encoder")
    monkeypatch.setattr(writing, "_ENCODERS", {k: v for k, v in writing._ENCODERS.items() if k not in hidden})
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (47, 63), Fraction(30000, 1001)) as writer:
        for _ in range(4):
            writer.write(quarters((47, 63)))
        assert not path.exists()
    assert video_facts(path) == VideoFacts(
        4, pytest.approx(30000 / 1001), (48, 64), pytest.approx(4 * 1001 / 30000, abs=1e-3)
    )
    assert corners(next(read_frames(path))) == [40, 90, 140, 190]
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == (codec, "yuv420p")


def test_frames_are_written_at_their_times(tmp_path: Path) -> None:
    times = [0, 0.25, 0.3, 0.3, 1.5]
    with VideoWriter(tmp_path / "a.mp4", SIZE, 10) as writer:
        for time in times:
            writer.write(grey(100), time)
    with Video(tmp_path / "a.mp4") as video:
        assert [frame.time for frame in video.frames()] == pytest.approx(times, abs=1e-4)


def test_a_video_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"what was there before")
    with pytest.raises(UsageError, match="pixels: expected"), VideoWriter(path, SIZE, 10) as writer:
        list(map(writer.write, [grey(100), grey(100, (2, 2))]))
    with pytest.raises(UsageError, match="a video needs a frame"), VideoWriter(path, SIZE, 10):
        pass
    assert path.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="cannot write"), VideoWriter(tmp_path / "nowhere/a.mp4", SIZE, 10):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((48, 64), 0), "rate: expected"),
        (((0, 64), 10), r"size\[0\]: expected"),
        (((48, 64, 3), 10), "size: expected"),
    ],
)
def test_a_video_that_cannot_be_meant(tmp_path: Path, arguments: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        VideoWriter(tmp_path / "a.mp4", *arguments)


def test_frames_of_another_size_or_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pixels: expected \(48, 64\)"), VideoWriter(tmp_path / "a.mp4", SIZE, 1) as w:
        w.write(grey(1, (64, 48)))
    with pytest.raises(UsageError, match="uint8"), VideoWriter(tmp_path / "a.mp4", SIZE, 1) as writer:
        writer.write(grey(1).astype(np.float32))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DependencyMissing, match=r"edgemask\[video\]"):
        Video(tmp_path / "a.mp4")


def test_importing_it_does_not_load_the_library(repository: Path) -> None:
    code = "import sys, edgemask.video; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path, repository: Path) -> None:
    """Of 300 frames of 1.4 MB each; frames that hold themselves until a collection took 130 MB."""
    path = write_clip(tmp_path / "a.mp4", [grey(100, (600, 800))] * 300)
    code = (
        "import sys; from edgemask.video import read_frames; frames = read_frames(sys.argv[1]); "
        "held = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096; "
        "[next(frames) for _ in range(20)]; before = held(); most = max(held() - before for _ in frames); print(most)"
    )
    words = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 30_000_000
