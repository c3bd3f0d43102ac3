"""`edgemask package`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemask.cli import completion
from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import AsJson, ModelFile

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.inspection import TensorInfo
    from edgemask.triton import TritonPackage

EXAMPLE = """\b
Example: edgemask package model.onnx --triton repository/
Example: edgemask package model.onnx --triton repository/ --device cuda
Unverified: no server has loaded one yet; the schema of its config is held."""


def package(
    model: ModelFile,
    triton: Annotated[
        Path, typer.Option(metavar="DIR", help="Model repository of Triton Inference Server; made if missing.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the model there.  [default: that of the file]")
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="D",
            help="auto, cpu, cuda[:N] or tensorrt[:N]: where the server is to run it.",
            autocompletion=completion.devices,
        ),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Write a model file for an inference server."""
    with working("package", "cpu"):
        from edgemask.triton import package_model

        written = package_model(model, triton=triton, name=name, device=device)
    answer(
        written,
        as_json=as_json,
        show=lambda console: _show(console, written),
        following=[["tritonserver", "--model-repository", triton, "--disable-auto-complete-config"]],
    )


def _show(console: "Console", written: "TritonPackage") -> None:
    facts(
        console,
        repository=written.repository,
        model=written.name,
        backend=f"{written.backend}, for {written.device}",
        files=", ".join(written.files),
        inputs=_listed(written.inputs),
        outputs=_listed(written.outputs),
        state="unverified: no Triton server has loaded such a repository yet",
    )


def _listed(tensors: "tuple[TensorInfo, ...]") -> str:
    return "; ".join(f"{one.name} {one.dtype} [{', '.join(map(str, one.shape))}]" for one in tensors)
