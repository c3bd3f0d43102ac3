"""The command line: one sub-command per public function.

Exit codes: 0 done; 1 a gate failed; 2 wrong use or bad input; 3 the environment lacks something; 70 a fault of
edgemask; 130 interrupted; 143 terminated. What a command prints is a record; `--json` prints the same record to
standard output.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: words after `edgemask`; None takes those of this process.

    Returns:
        The exit code.
    """
    from edgemask.cli.process import run

    def body() -> None:
        from edgemask.cli.app import app

        app(arguments, prog_name="edgemask")

    return run(body, last=arguments is None)
