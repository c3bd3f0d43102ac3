"""Files of weights, read without running what is in them: safetensors, and by `weights_only` what torch.save wrote."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from edgemask.checks import printable
from edgemask.dependencies import require
from edgemask.errors import ModelFileError
from edgemask.files import remedy_for_path

NAME_ARCHITECTURE = "name the architecture: edgemask export BUILDER --weights FILE --num-classes N"
_FOREIGN_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
# What a layer can take a copy of; not complex and quantized numbers, nor those of 4 and 8 bits.
_NUMBERS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool})
_WORDS_LIMIT = 300  # of what a library says, in which a stranger's names may stand


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a safetensors file or of a foreign state dict; nothing in the file is executed.

    Raises:
        ModelFileError: no such file, or anything but a state dict of tensors.
        DependencyMissing: PyTorch is too old to read it safely.
    """
    path = Path(path)
    if path.suffix not in _FOREIGN_SUFFIXES:
        return read_safetensors(path)[0]
    remedy = "save it again with torch.save(model.state_dict(), …): pickled modules are never executed here"
    loaded = read_tensors(path, remedy)
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ModelFileError(f"{path} is no state dict of tensors", "save it with torch.save(model.state_dict(), …)")
    return _plain(loaded, path)


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata.

    Raises:
        ModelFileError: no such file, no safetensors, or tensors that are no plain numbers.
    """
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _plain(state, path), file.metadata() or {}
    except SafetensorError as error:
        remedy = NAME_ARCHITECTURE if path.suffix in _FOREIGN_SUFFIXES else "expected what edgemask train writes"
        raise ModelFileError(f"{path} is no safetensors file: {_words(error)}", remedy) from error
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}", remedy_for_path(path)) from error


def read_tensors(path: Path, remedy: str) -> Any:
    """What `torch.save` wrote, as far as it is tensors and plain Python values; nothing in the file is executed.

    Raises:
        ModelFileError: no such file, damaged, or with anything else inside.
        DependencyMissing: PyTorch is too old to read it safely.
    """
    require("torch")
    try:
        _refuse_bomb(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}", remedy_for_path(path)) from error
    except Exception as error:  # a stranger's pickle can make its reader fail in any way
        raise ModelFileError(f"{path} is no plain state dict: {_words(error)}", remedy) from error


def _refuse_bomb(path: Path) -> None:
    """Refuses an archive whose parts are larger than itself: torch.save compresses nothing."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > path.stat().st_size:
            raise ValueError(f"an archive of {path.stat().st_size} bytes that unpacks to {size}")


def _plain(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Refuses what cannot be copied into a layer: tensors without storage, sparse, nested, of other numbers."""
    for name, tensor in state.items():
        is_dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
        if not is_dense or tensor.dtype not in _NUMBERS:
            raise ModelFileError(
                f"{path} is no state dict of plain numbers: {str(name)[:200]!a} is {tensor.layout} {tensor.dtype} on "
                f"{tensor.device.type}",
                "save it with torch.save(model.state_dict(), …) of a model in floating point",
            )
    return state


def _words(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0])[:_WORDS_LIMIT]
