"""What this machine has for running models, what is wrong with it, and which devices work: `edgemask doctor`."""

from edgemask.doctor.examination import diagnose
from edgemask.doctor.records import (
    Cache,
    Conflict,
    DeviceVerdict,
    Diagnosis,
    Gpu,
    Jetson,
    Library,
    Memory,
    ModelFacts,
    Nvidia,
    OpenVinoDevice,
    Processor,
    Trial,
)

__all__ = [
    "Cache",
    "Conflict",
    "DeviceVerdict",
    "Diagnosis",
    "Gpu",
    "Jetson",
    "Library",
    "Memory",
    "ModelFacts",
    "Nvidia",
    "OpenVinoDevice",
    "Processor",
    "Trial",
    "diagnose",
]
