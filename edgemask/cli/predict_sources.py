"""What `edgemask predict` is given: images, folders, videos, cameras; and where the pictures of each go."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemask.errors import DatasetError, UsageError
from edgemask.images import IMAGE_SUFFIXES
from edgemask.video import VIDEO_SUFFIXES, is_endless


@dataclass(frozen=True, slots=True)
class Source:
    """An image, a video, a camera or an address.

    Args:
        name: as the user, or the folder, calls it.
        path: its file; of a camera or an address, a path that is not there, whose name is given to what comes of it.
        is_video: whether it has frames.
    """

    name: str
    path: Path
    is_video: bool


def sources_of(words: Sequence[str], *, stop: float | None, images_only: str | None) -> list[Source]:
    """What the words name, in their order; of folders, the images in them.

    Args:
        words: files, folders, cameras, addresses.
        stop: seconds after which videos end.
        images_only: an option of the command that videos do not go with, where it is used.

    Raises:
        UsageError: nothing of that name, a folder without images, a camera without an end, a video with that option.
    """
    found: list[Source] = []
    for word in words:
        if is_endless(word):
            if stop is None:
                raise UsageError(f"{word} need not end by itself", "say after how many seconds: --stop 60")
            found.append(Source(word, _stand_in(word), True))
        else:
            files = image_files([Path(word)])
            found += [Source(str(file), file, file.suffix.lower() in VIDEO_SUFFIXES) for file in files]
    videos = [source.name for source in found if source.is_video]
    if videos and images_only is not None:
        raise UsageError(f"{images_only} goes with images, and {videos[0]} is a video", f"leave out {images_only}")
    return found


def _stand_in(word: str) -> Path:
    if camera := re.fullmatch(r"camera:(\d+)", word):
        return Path(f"/dev/video{camera[1]}.mp4")
    return Path(re.split(r"[?#]", word)[0]).with_suffix(".mp4")


def image_files(sources: Sequence[Path]) -> list[Path]:
    """Files named, and those in folders named that look like images, in order of their names.

    Raises:
        UsageError: nothing of that name, or a folder without images.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(
                path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            )
            if not inside:
                expected = f"expected files with {', '.join(IMAGE_SUFFIXES)}; a video is taken where it is named itself"
                raise UsageError(f"there is no image in {source}", expected)
            files += inside
        elif source.is_file():
            files.append(source)
        else:
            raise UsageError(f"there is no file or folder {source}", "check the path")
    return files


def image_ids(files: Sequence[Path], annotations: Path) -> list[int]:
    """The id that a COCO-format file gives each image: the entry whose `file_name` ends the image's path.

    Raises:
        DatasetError: the annotations cannot be read, or do not list an image.
    """
    try:
        entries = json.loads(annotations.read_bytes())["images"]
        known = {Path(entry["file_name"]).parts: int(entry["id"]) for entry in entries}
    except OSError as error:
        raise DatasetError(f"cannot read annotations {annotations}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{annotations} is no COCO annotation file: {type(error).__name__} {error}",
            "expected a JSON object with the list images, of entries with id and file_name",
        ) from error
    ids = []
    for file in files:
        parts = file.absolute().parts
        found = [known[parts[start:]] for start in range(len(parts)) if parts[start:] in known]
        if not found:
            raise DatasetError(f"{annotations} does not list {file}", "leave the image out, or leave out --annotations")
        ids.append(found[0])
    return ids


def picture_paths(files: Sequence[Path], folder: Path | None) -> list[Path | None]:
    """Where each annotated copy goes, each name once.

    They are called `folder/stem` with .jpg of JPEGs, .mp4 of videos, else .png.

    Raises:
        UsageError: a copy would replace one of the files.
    """
    if folder is None:
        return [None] * len(files)
    originals = {file.resolve() for file in files}
    taken: set[str] = set()
    paths: list[Path | None] = []
    for file in files:
        suffix = _picture_suffix(file.suffix.lower())
        name, number = file.stem + suffix, 2
        while name.casefold() in taken:  # some file systems do not tell A from a
            name, number = f"{file.stem}-{number}{suffix}", number + 1
        taken.add(name.casefold())
        path = folder / name
        if path.resolve() in originals:
            kind = "video" if suffix == ".mp4" else "image"
            raise UsageError(f"the annotated copy of {file} would replace the {kind} {path}", "name another folder")
        paths.append(path)
    return paths


def _picture_suffix(suffix: str) -> str:
    if suffix in VIDEO_SUFFIXES:
        return ".mp4"
    return ".jpg" if suffix in {".jpg", ".jpeg"} else ".png"
