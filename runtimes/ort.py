"""ONNX Runtime on the CPU and on NVIDIA GPUs."""

import ctypes
import importlib.metadata
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from edgemask.errors import DeviceUnavailable
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.runtime import Array, Runtime, failure, thread_count
from edgemask.runtimes.widening import float32_data

_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


class OrtCpu(Runtime):
    """ONNX Runtime's CPU provider. Arithmetic is float32, of a file in FP16 with its rounded weights."""

    provider = "CPUExecutionProvider"
    installation = "pip install 'edgemask[cpu]'"

    @classmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        """See `Runtime.unavailable`; the CPU has no targets."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            return DeviceUnavailable(f"onnxruntime cannot be imported ({error})", cls.installation)
        return None

    def __init__(self, model: ModelFile, target: str) -> None:
        """Opens the model with as many threads as this process may use processors."""
        import onnxruntime

        self.device = self._name(target)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = 3
        # Memory patterns are made for one shape; with changing shapes they pile up.
        options.enable_mem_pattern = model.spec.canvas is not None
        try:
            self._session: Any = onnxruntime.InferenceSession(
                self._data(model),
                options,
                providers=self._providers(target, dynamic=model.spec.canvas is None),
                enable_fallback=0,  # the library's own is silent
            )
        except Exception as error:
            raise failure(f"ONNX Runtime cannot open {model.path} on {self.device}", error) from error
        used = self._session.get_providers()
        if used[0] != self.provider:
            raise DeviceUnavailable(
                f"ONNX Runtime opened the model on {used[0]}, not on {self.provider}", self._remedy(onnxruntime)
            )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runtime.run`; may be called from several threads at once."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise failure(f"ONNX Runtime failed on {self.device} with {shapes}", error) from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """See `Runtime.close`."""
        self._session = None

    @classmethod
    def _name(cls, target: str) -> str:
        return "cpu"

    def _data(self, model: ModelFile) -> bytes:
        return float32_data(model)

    def _providers(self, target: str, *, dynamic: bool) -> list[Any]:
        return [self.provider]

    def _remedy(self, onnxruntime: ModuleType) -> str:
        return "reinstall onnxruntime"


class OrtCuda(OrtCpu):
    """ONNX Runtime's CUDA provider; a target is the GPU's number. Arithmetic is float32, TF32 is off.

    A file in FP16 is opened as it is: what it has in float16 is computed in float16, the rest in float32.
    """

    provider = "CUDAExecutionProvider"
    installation = "pip install 'edgemask[cuda]'"

    @classmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        """See `Runtime.unavailable`."""
        reason = super().unavailable(target)
        if reason is not None:
            return reason
        if all(_is_installed(name) for name in _PACKAGES):
            return DeviceUnavailable(
                "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
                f"pip uninstall onnxruntime onnxruntime-gpu, then {cls.installation}",
            )
        import onnxruntime

        if cls.provider not in onnxruntime.get_available_providers():
            return DeviceUnavailable(
                "this onnxruntime was built without CUDA", f"pip uninstall onnxruntime, then {cls.installation}"
            )
        try:
            ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        except OSError as error:
            return DeviceUnavailable(
                f"there is no NVIDIA driver here ({error})", "install it; nvidia-smi must show the GPU"
            )
        return None

    def __init__(self, model: ModelFile, target: str) -> None:
        """Loads the CUDA libraries that came as Python packages, then opens the model."""
        import onnxruntime

        onnxruntime.preload_dlls()
        super().__init__(model, target)

    @classmethod
    def _name(cls, target: str) -> str:
        return f"cuda:{target}"

    def _data(self, model: ModelFile) -> bytes:
        return model.data

    def _providers(self, target: str, *, dynamic: bool) -> list[Any]:
        options = {
            "device_id": target,
            "use_tf32": "0",
            # An exhaustive search would be repeated for every new size of image.
            "cudnn_conv_algo_search": "HEURISTIC" if dynamic else "EXHAUSTIVE",
        }
        return [(self.provider, options), "CPUExecutionProvider"]

    def _remedy(self, onnxruntime: ModuleType) -> str:
        cuda = getattr(onnxruntime, "cuda_version", "") or "its CUDA version"
        return (
            f"onnxruntime-gpu {onnxruntime.__version__} needs an NVIDIA driver and CUDA {cuda} with cuDNN: "
            "pip install 'edgemask[cuda]' brings the libraries, nvidia-smi shows the driver"
        )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
