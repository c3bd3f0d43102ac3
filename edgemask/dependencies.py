"""The oldest packages that may read files of strangers: older ones have holes that are publicly known.

pip sees to the same floors (`pyproject.toml`), yet nothing holds an environment to them once it is installed.
"""

import functools
import re
import sys

from edgemask.errors import DependencyMissing

# By the module that is imported. CVE-2026-112403 and others of Pillow's decoders are mended in 13.0; CVE-2026-34445 to
# -34447 of onnx in 1.21; CVE-2026-24747 of `torch.load(weights_only=True)` in 2.10, and edgemask itself needs 2.11.
FLOORS = {"PIL": ("pillow", "13.0"), "onnx": ("onnx", "1.21"), "torch": ("torch", "2.11")}


def require(module: str) -> None:
    """Refuses a package that is too old to read what may come from a stranger; looks once in a process.

    Args:
        module: a key of `FLOORS`, imported already.

    Raises:
        DependencyMissing: the package is older than its floor.
    """
    _check(module, str(sys.modules[module].__version__))


@functools.cache
def _check(module: str, version: str) -> None:
    package, floor = FLOORS[module]
    if _numbers(version) < _numbers(floor):
        raise DependencyMissing(
            f"{package} {version} has known security holes in what reads files; needed is {floor} or newer",
            f"pip install --upgrade '{package}>={floor}'",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """2.15.0+cu132 -> (2, 15, 0); of a pre-release, its release."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
