"""NVIDIA Jetson: which release of Jetson Linux runs, and what its JetPack brings."""

import re
from dataclasses import dataclass
from pathlib import Path

from edgemask.doctor.machine import device_tree_model, text_of
from edgemask.doctor.records import Jetson
from edgemask.processors import SYSTEM_FILES

_RELEASE = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class _JetPack:
    """A release of JetPack by the releases of Jetson Linux that it installs, and what it brings."""

    l4t: str  # the beginning of a release; the longest that fits counts
    name: str
    python: str
    cuda: str
    cudnn: str
    tensorrt: str


# Read in NVIDIA's and others' pages and never on a board; docs/devices.md says which figures are only recalled.
_TABLE = (
    _JetPack("35.1", "5.0.2", "3.8", "11.4", "8.4", "8.4"),
    _JetPack("35.2", "5.1", "3.8", "11.4", "8.6", "8.5"),
    _JetPack("35.3", "5.1.1", "3.8", "11.4", "8.6", "8.5"),
    _JetPack("35.4", "5.1.2", "3.8", "11.4", "8.6", "8.5"),
    _JetPack("35.5", "5.1.3", "3.8", "11.4", "8.6", "8.5"),
    _JetPack("35", "5", "3.8", "11.4", "8.6", "8.5"),
    _JetPack("36.2", "6.0 developer preview", "3.10", "12.2", "8.9", "8.6"),
    _JetPack("36.3", "6.0", "3.10", "12.2", "8.9", "8.6"),
    _JetPack("36.4.0", "6.1", "3.10", "12.6", "9.3", "10.3"),
    _JetPack("36.4.2", "6.1.1", "3.10", "12.6", "9.3", "10.3"),
    _JetPack("36.4.3", "6.2", "3.10", "12.6", "9.3", "10.3"),
    _JetPack("36.4.4", "6.2.1", "3.10", "12.6", "9.3", "10.3"),
    _JetPack("36.4", "6.2", "3.10", "12.6", "9.3", "10.3"),
    _JetPack("36.5", "6.2.2", "3.10", "12.6", "9.3", "10.3"),
    _JetPack("38.2", "7.0", "3.12", "13.0", "9.12", "10.13"),
    _JetPack("38.4", "7.1", "3.12", "13.0", "9.12", "10.13"),
    _JetPack("39.2", "7.2", "3.12", "13.2", "9.20", "10.16"),
)


def jetson(system: Path = SYSTEM_FILES) -> Jetson | None:
    """The Jetson that this is; None on any other machine.

    Args:
        system: the root of the file system.
    """
    model = device_tree_model(system)
    release = l4t_release(text_of(system / "etc/nv_tegra_release"))
    if release is None and "jetson" not in model.lower():
        return None
    known = None if release is None else _jetpack(release)
    if known is None:
        return Jetson(model=model, l4t=release)
    return Jetson(
        model=model,
        l4t=release,
        jetpack=known.name,
        python=known.python,
        cuda=known.cuda,
        cudnn=known.cudnn,
        tensorrt=known.tensorrt,
    )


def l4t_release(text: str) -> str | None:
    """The release of Jetson Linux that the text of `/etc/nv_tegra_release` names, such as 36.4.3; None if none."""
    found = _RELEASE.search(text)
    return None if found is None else f"{found[1]}.{found[2]}"


def _jetpack(release: str) -> _JetPack | None:
    fitting = [entry for entry in _TABLE if f"{release}.".startswith(f"{entry.l4t}.")]
    return max(fitting, key=lambda entry: len(entry.l4t), default=None)
