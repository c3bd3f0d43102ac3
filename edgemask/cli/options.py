"""Options that several commands share, and how their texts are read."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgemask.cli import completion
from edgemask.errors import OutputError, UsageError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
DEVICES = "auto, cpu, cuda[:N], tensorrt[:N] or openvino[:CPU|GPU|NPU|AUTO]"
Device = Annotated[
    str, typer.Option(help=f"{DEVICES}; torch for a checkpoint.", metavar="D", autocompletion=completion.devices)
]
Fallback = Annotated[bool, typer.Option("--fallback", help="Where the device cannot be used, warn and take another.")]
LibraryOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="threads, precision, cache, memory_limit, streams, or one of the library's.",
        autocompletion=completion.options,
    ),
]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A file written by edgemask export.")]


def check_folder(path: Path | None) -> None:
    """Refuses a file to write whose folder is missing: before the work, not after it.

    Raises:
        OutputError: there is no such folder.
    """
    if path is not None and path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder", "name a file in it")
    if path is not None and not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}", "create it, or name another place")


def read_size(option: str, text: str) -> tuple[int, int]:
    """Reads `HxW`, such as 800x1088, as height and width.

    Raises:
        UsageError: anything else.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip().lower())
    if found is None:
        raise UsageError(f"{option} is {text!r}", "expected height x width in pixels, such as 800x1088")
    return int(found[1]), int(found[2])


def read_shape(text: str) -> tuple[int, int] | Literal["dynamic"]:
    """Reads the value of `--shape`.

    Raises:
        UsageError: neither a size nor `dynamic`.
    """
    return "dynamic" if text == "dynamic" else read_size("--shape", text)


def read_batch(text: str) -> int | Literal["dynamic"]:
    """Reads the value of `--batch`.

    Raises:
        UsageError: neither a number from 1 to 9999 nor `dynamic`.
    """
    if text == "dynamic":
        return "dynamic"
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise UsageError(f"--batch is {text!r}", "expected a number of images, such as 1, or dynamic")
    return int(text)


def read_proposals(text: str) -> int | Literal["rpn", "input"]:
    """Reads the value of `--proposals`.

    Raises:
        UsageError: neither a number from 1 to 99999 nor `input` nor `rpn`.
    """
    if text in ("rpn", "input"):
        return "input" if text == "input" else "rpn"
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise UsageError(f"--proposals is {text!r}", "expected a number of boxes, such as 300, or input")
    return int(text)


def read_classes(path: Path | None) -> list[str] | None:
    """Reads class names from a file, one a line, in label order; None stays None.

    Raises:
        UsageError: no such file, not UTF-8, no name in it, or an empty line between two names.
    """
    if path is None:
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").strip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read class names from {path}: {reason}", "expected one name per line") from error
    if not names or not all(names):
        line = names.index("") + 1 if names else 1
        raise UsageError(f"{path} has no class name in line {line}", "expected one name per line, in label order")
    return names
