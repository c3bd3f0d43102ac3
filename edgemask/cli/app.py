"""The commands, put together."""

from typing import Annotated

import typer

from edgemask import __version__
from edgemask.cli import bench, demo, doctor, export, inspect, package, predict, quantize, scenes, train, validate

app = typer.Typer(
    name="edgemask",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command(epilog=demo.EXAMPLE)(demo.demo)
app.command(epilog=export.EXAMPLE)(export.export)
app.command(epilog=quantize.EXAMPLE)(quantize.quantize)
app.command(epilog=validate.EXAMPLE)(validate.validate)
app.command(epilog=predict.EXAMPLE)(predict.predict)
app.command(epilog=inspect.EXAMPLE)(inspect.inspect)
app.command(epilog=package.EXAMPLE)(package.package)
app.command(epilog=bench.EXAMPLE)(bench.bench)
app.command(epilog=doctor.EXAMPLE)(doctor.doctor)
app.command(epilog=train.EXAMPLE)(train.train)
app.command(epilog=scenes.EXAMPLE)(scenes.scenes)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(epilog="Try it: edgemask demo")
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take a trained Mask R-CNN from PyTorch to the edge: one ONNX file, proven equal."""
