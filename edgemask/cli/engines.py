"""Options of the commands that can spread their images over a cluster."""

from typing import Annotated

import typer

from edgemask.checks import did_you_mean
from edgemask.cli import completion
from edgemask.cluster import Cluster
from edgemask.errors import UsageError

_ENGINES = ("local", "ray")
Engine = Annotated[
    str,
    typer.Option(
        metavar="local|ray",
        help="This process, or a Ray cluster.",
        autocompletion=completion.one_of(*_ENGINES),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Of a Ray cluster that runs.  [default: one on this machine]"),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Of ray: processes, each with the model.  [default: what fits]")
]


def cluster_of(engine: str, address: str | None, workers: int | None) -> Cluster | None:
    """The cluster that the options name; None for the engine `local`.

    Raises:
        UsageError: another engine, or options of a cluster without one.
    """
    if engine not in _ENGINES:
        raise UsageError(f"--engine is {engine!r}", did_you_mean(engine, _ENGINES, f"expected {' or '.join(_ENGINES)}"))
    if engine == "ray":
        return Cluster(address=address, workers=workers)
    if address is not None or workers is not None:
        given = "--address" if address is not None else "--workers"
        raise UsageError(f"{given} goes with a cluster", "add --engine ray")
    return None
