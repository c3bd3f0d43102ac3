"""Opening what the user names: a model file on a device, or a checkpoint in PyTorch."""

from pathlib import Path

from edgemask.checks import refuse
from edgemask.runtimes.detector import Detector
from edgemask.runtimes.modelfile import read_model
from edgemask.runtimes.options import RuntimeOptions
from edgemask.runtimes.torch_detector import TorchDetector


def load(
    path: str | Path, *, device: str = "auto", options: RuntimeOptions | None = None, fallback: bool = False
) -> Detector:
    """Opens a model file, or a checkpoint. See `edgemask.load`."""
    if not isinstance(device, str):
        refuse("device", "the name of one, such as auto or cuda:0", device)
    if not isinstance(options, RuntimeOptions | None):
        refuse("options", "RuntimeOptions", options)
    if Path(path).suffix == ".safetensors":
        return TorchDetector(path, device, options=options)
    return Detector(read_model(path), device, options=options, fallback=fallback)
