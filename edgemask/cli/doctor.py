"""`edgemask doctor`."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from edgemask.checks import printable
from edgemask.cli import completion
from edgemask.cli.answers import answer, working
from edgemask.cli.options import DEVICES, AsJson, LibraryOptions

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.doctor import DeviceVerdict, Diagnosis, Jetson, Nvidia, Trial
    from edgemask.runtimes import RuntimeOptions

EXAMPLE = """\b
Example: edgemask doctor
Example: edgemask doctor model.onnx --device cuda"""
_LACKING = 3  # exit code, as that of DeviceUnavailable
_GIBIBYTE = 2**30
_MARKS = {True: Text("ok", "bold green"), False: Text("no", "bold red")}
_MARK_WIDTH = 4  # with what parts it from the words behind it


def doctor(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL.onnx]", help="Also open this file on each device, and run it once.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="D", help=f"Only this device: {DEVICES}; may be repeated.", autocompletion=completion.devices
        ),
    ] = None,
    options: LibraryOptions = None,
    as_json: AsJson = False,
) -> None:
    """Say which devices work here, and what the others lack.

    Ends with exit code 3 where a device named by --device does not work.
    """
    with working("doctor", "cpu"):
        from edgemask.doctor import diagnose

        found = diagnose(model, device, options=_options(options))
    answer(
        found,
        as_json=as_json,
        show=lambda console: _show(console, found),
        following=[_next(found)],
    )
    if found.failed:
        raise typer.Exit(_LACKING)


def _options(texts: list[str] | None) -> "RuntimeOptions | None":
    if texts is None:
        return None
    from edgemask.runtimes.options import parse_options

    return parse_options(texts)


def _next(found: "Diagnosis") -> list[object]:
    if found.failed or not any(one.usable for one in found.devices):
        return ["edgemask", "doctor", *([found.model.path] if found.model else [])]
    if found.model is None:
        return ["edgemask", "doctor", "MODEL.onnx"]
    wanted = next(one.device for one in found.devices if one.usable)
    return ["edgemask", "predict", found.model.path, "IMAGE", "-o", "DIR", "--device", found.chosen or wanted]


def _show(console: "Console", found: "Diagnosis") -> None:
    _heading(console, "This machine")
    cpu, memory = found.processor, found.memory
    libraries = {library.name: library.version or f"none: {library.problem}" for library in found.libraries}
    _facts(
        console,
        system=f"{found.system}, {cpu.architecture}{', in a container' if found.container else ''}",
        processor=f"{cpu.name}, {cpu.threads} of {cpu.count} processors for this process",
        instructions=", ".join(cpu.features) or "none of those that make models fast",
        memory=", ".join(
            f"{words} {_gibibytes(size)}"
            for words, size in (("total", memory.total), ("free", memory.available), ("limited to", memory.limit))
            if size is not None
        )
        or "not known",
        Jetson=None if found.jetson is None else _jetson(found.jetson),
        GPU=_gpus(found.nvidia),
        **libraries,
        OpenVINO=", ".join(f"{one.name} ({one.full_name})" for one in found.openvino) or "sees no device",
        Python=found.python,
        packages=", ".join(f"{name} {version}" for name, version in found.packages.items()),
        cache=_cache(found),
    )
    if found.model is not None:
        console.print()
        _heading(console, "This model")
        _show_model(console, found)
    if found.conflicts:
        console.print()
        _heading(console, "Watch out")
        for conflict in found.conflicts:
            _say(console, "- ", conflict.problem)
            _say(console, "  ", conflict.remedy, "cyan")
    console.print()
    _heading(console, "What works here")
    width = max((len(one.device) for one in found.devices), default=0) + 2
    for one in found.devices:
        _show_device(console, one, width)
    if found.chosen is not None:
        console.print(Text(f"auto takes {found.chosen}", "dim"))
    console.print()


def _show_model(console: "Console", found: "Diagnosis") -> None:
    model = found.model
    assert model is not None
    canvas = "any size" if model.canvas is None else "{} x {} (H x W)".format(*model.canvas)
    _facts(
        console,
        file=model.path,
        size=f"{model.bytes / 1e6:.1f} MB",
        precision=model.precision,
        images=f"{canvas}, {model.batch or 'any number'} per run",
        opset=f"{model.opset}",
    )
    for text in model.notes:
        _say(console, "- ", text)


def _show_device(console: "Console", one: "DeviceVerdict", width: int) -> None:
    lead = Text.assemble(f"{one.device:{width}}", _MARKS[one.usable], " " * (_MARK_WIDTH - 2))
    strayed = one.trial is not None and one.trial.placed_well is False
    _say(console, lead, one.reason or "; ".join(_ran(one.trial)), "red" if strayed else "")
    if one.remedy is not None:
        _say(console, " " * (width + _MARK_WIDTH), one.remedy, "cyan")


def _ran(trial: "Trial | None") -> Iterator[str]:
    """What a model did on a device, in a few words each."""
    if trial is None:
        return
    yield f"opened in {trial.open_seconds:.2f} s"
    yield "first run of {} x {} in {:.3f} s".format(*trial.image, trial.run_seconds)
    if trial.precision is not None:
        yield f"computes in {trial.precision}"
    if trial.placement is not None:
        yield trial.placement


def _gpus(nvidia: "Nvidia") -> str:
    if not nvidia.gpus:
        return f"none of NVIDIA: {nvidia.problem}"
    shown = [
        f"{gpu.index}: {gpu.name}, compute capability {gpu.compute_capability}, {_gibibytes(gpu.memory)}"
        for gpu in nvidia.gpus
    ]
    return "; ".join([*shown, f"driver for CUDA up to {nvidia.cuda}", *([nvidia.build] if nvidia.build else [])])


def _jetson(board: "Jetson") -> str:
    release = "Jetson Linux of an unknown release" if board.l4t is None else f"Jetson Linux {board.l4t}"
    if board.jetpack is None:
        return f"{board.model or 'a Jetson'}, {release}, of no JetPack that is known here"
    return (
        f"{board.model or 'a Jetson'}, {release}: JetPack {board.jetpack}, which brings Python {board.python}, "
        f"CUDA {board.cuda}, cuDNN {board.cudnn}, TensorRT {board.tensorrt}"
    )


def _cache(found: "Diagnosis") -> str | None:
    if found.cache.folder is None:
        return None
    cache = found.cache
    models = f"{cache.models} compiled {'model' if cache.models == 1 else 'models'}"
    return f"{cache.folder}, {models}, {cache.bytes / 1e6:.1f} MB"


def _gibibytes(size: int) -> str:
    return f"{size / _GIBIBYTE:.1f} GiB"


def _heading(console: "Console", title: str) -> None:
    console.print(Text(title, "bold"))


def _facts(console: "Console", **lines: str | None) -> None:
    """As `answers.facts`, with long values broken below each other on a terminal."""
    shown = {name: value for name, value in lines.items() if value is not None}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        _say(console, Text(f"{name:{width}}  ", "dim"), value)


def _say(console: "Console", lead: str | Text, words: str, style: str = "") -> None:
    """Prints words behind what leads them; on a terminal, long ones are broken below each other."""
    lead = Text(lead) if isinstance(lead, str) else lead
    lines = [printable(words)]
    if console.is_terminal:
        room = max(20, console.width - lead.cell_len)
        lines = textwrap.wrap(lines[0], room, break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        start = Text(" " * lead.cell_len) if number else lead
        text = Text.assemble(start, Text(line, style))
        text.rstrip()
        console.print(text, soft_wrap=True)
