"""`edgemask validate`."""

def validate() -> None:
    """Compare."""
EXAMPLE = ""
