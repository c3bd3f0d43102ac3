"""ONNX Runtime on NVIDIA GPUs: its CUDA and TensorRT providers. Neither has been run by us on a GPU yet."""

import hashlib
import os
import threading
from collections.abc import Mapping
from typing import Any

import edgemask
from edgemask.errors import DeviceUnavailable, UsageError
from edgemask.progress import waiting
from edgemask.runtimes import nvidia
from edgemask.runtimes.cache import Entry, open_entry
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.options import (
    UNCACHED,
    RuntimeOptions,
    changing,
    check_options,
    cuda_options,
    shrinking_run,
    tensorrt_options,
)
from edgemask.runtimes.ort import CPU_PROVIDER, OrtCpu, is_of_session
from edgemask.runtimes.runtime import Array

_TF32 = "NVIDIA_TF32_OVERRIDE"  # "0" keeps NVIDIA's libraries from TF32, whatever they are told


class OrtCuda(OrtCpu):
    """ONNX Runtime's CUDA provider; a target is the GPU's number. Arithmetic is float32; TF32 is off unless asked for.

    A file in FP16 is opened as it is: what it has in float16 is computed in float16, the rest in float32.
    """

    provider = "CUDAExecutionProvider"
    installation = nvidia.INSTALLATION
    precisions: tuple[str, ...] = ("tf32",)
    memory = "cuda"  # where inputs are put, in ONNX Runtime's words
    _kind = "cuda"

    @classmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        """See `Runtime.unavailable`."""
        return super().unavailable(target) or nvidia.missing(cls._kind, target)

    def __init__(
        self, model: ModelFile, target: str, options: RuntimeOptions = UNCACHED, *, fallback: bool = False
    ) -> None:
        """Loads the CUDA libraries that came as Python packages, then opens the model. See `Runtime`."""
        nvidia.load_libraries(self._kind)
        self._number = int(target)
        self._shrinks = changing(model.spec)
        self._buffers = threading.local()
        super().__init__(model, target, options, fallback=fallback)

    def _check(self, options: RuntimeOptions) -> None:
        check_options(options, self.device, precisions=self.precisions, others=["memory_limit", "library"])

    def _values(self, session: Any, inputs: Mapping[str, Array]) -> list[Array]:
        """Runs with the images in a buffer of the GPU that is used again, one for each thread."""
        import onnxruntime

        settings = onnxruntime.RunOptions()
        binding = session.io_binding()
        for name, value in inputs.items():
            if name == "images":
                if self._shrinks and not self._fits(value):
                    for key, setting in shrinking_run(f"{self._number}").items():
                        settings.add_run_config_entry(key, setting)
                binding.bind_ortvalue_input(name, self._on_device(value))
            else:
                binding.bind_cpu_input(name, value)
        for name in self._outputs:
            binding.bind_output(name)
        session.run_with_iobinding(binding, settings)
        values: list[Array] = binding.copy_outputs_to_cpu()
        return values

    def _on_device(self, images: Array) -> Any:
        import onnxruntime

        if self._fits(images):
            self._buffers.images.update_inplace(images)
        else:
            self._buffers.images = onnxruntime.OrtValue.ortvalue_from_numpy(images, self.memory, self._number)
        return self._buffers.images

    def _fits(self, images: Array) -> bool:
        """Whether this thread's buffer has the shape of the images."""
        kept = getattr(self._buffers, "images", None)
        return kept is not None and tuple(kept.shape()) == images.shape

    def close(self) -> None:
        """See `Runtime.close`."""
        self._buffers = threading.local()
        super().close()

    @classmethod
    def _name(cls, target: str) -> str:
        return f"{cls._kind}:{target}"

    def _data(self, model: ModelFile) -> bytes:
        return model.data

    def _library_entries(self) -> Mapping[str, str]:
        return {name: value for name, value in self._options.library.items() if is_of_session(name)}

    def _providers(self, model: ModelFile) -> list[Any]:
        own = _with_library(cuda_options(self._options, model.spec, self._target), self._options)
        return [(self.provider, own), CPU_PROVIDER]

    def _remedy(self) -> str:
        import onnxruntime

        version = getattr(onnxruntime, "cuda_version", "") or "its CUDA version"
        return (
            f"onnxruntime-gpu {onnxruntime.__version__} needs an NVIDIA driver and CUDA {version} with cuDNN: "
            f"{nvidia.INSTALLATION} brings the libraries; `edgemask doctor` looks for what is missing"
        )


class OrtTensorRt(OrtCuda):
    """ONNX Runtime's TensorRT provider, and its CUDA provider on the same GPU for what TensorRT leaves out.

    TensorRT compiles the graph for one shape, which takes minutes on a Jetson and is kept for the next time. NMS,
    RoiAlign and what depends on the number of boxes stay with CUDA: inside TensorRT they cut the graph into pieces.
    """

    provider = "TensorrtExecutionProvider"
    precisions = ("tf32", "fp16")
    _kind = "tensorrt"

    def __init__(
        self, model: ModelFile, target: str, options: RuntimeOptions = UNCACHED, *, fallback: bool = False
    ) -> None:
        """Opens the model with the engines of the last time, or builds them. See `Runtime`.

        Raises:
            UsageError: float32 is asked for, which TensorRT would compute in TF32, and as `Runtime` says.
            DeviceUnavailable: the model takes any size or number of images, and as `Runtime` says.
        """
        if None in (model.spec.canvas, model.spec.batch):
            raise DeviceUnavailable(
                f"TensorRT compiles for one shape, and {model.path} takes images of any size or number",
                "export it with --shape HxW --batch N --target tensorrt",
            )
        if options.precision == "file" and model.spec.precision != "fp16" and os.environ.get(_TF32) != "0":
            raise UsageError(
                f"TensorRT would compute in TF32 what {model.path.name} has in float32, as its provider always does",
                f"allow it with --option precision=tf32, or set {_TF32}=0 in the environment",
            )
        self._entry = _entry(model, target, options)
        super().__init__(model, target, options, fallback=fallback)

    def _open(self, model: ModelFile, *, profile: str | None = None) -> Any:
        with waiting(f"building the TensorRT engine of {model.path.name}, which can take minutes"):
            session = super()._open(model, profile=profile)
        if self._entry is not None:
            self._entry.seal()
        return session

    def close(self) -> None:
        """See `Runtime.close`; what TensorRT added while it ran is kept too."""
        super().close()
        if self._entry is not None:
            self._entry.seal()
            self._entry.close()
            self._entry = None

    @property
    def promised(self) -> tuple[str, ...]:
        """See `Runtime.promised`: both are on the same GPU."""
        return (self.provider, OrtCuda.provider)

    def _providers(self, model: ModelFile) -> list[Any]:
        folder = None if self._entry is None else str(self._entry.folder())
        own = _with_library(tensorrt_options(self._options, model.spec, self._target, folder), self._options)
        return [
            (self.provider, own),
            (OrtCuda.provider, cuda_options(self._options, model.spec, self._target)),
            CPU_PROVIDER,
        ]


def _entry(model: ModelFile, target: str, options: RuntimeOptions) -> Entry | None:
    """Where the engines of a model are kept: apart for all that they depend on."""
    import onnxruntime

    driver = nvidia.driver()
    gpu = driver.gpus[int(target)]
    facts = {
        "model": hashlib.sha256(model.data).hexdigest(),  # its own digest may be that of the file it was made from
        "shape": f"{model.spec.batch} x {model.spec.canvas}",
        "library": f"onnxruntime {onnxruntime.__version__}, TensorRT {nvidia.tensorrt_version()}",
        "edgemask": edgemask.__version__,
        "device": f"{gpu.name}, compute capability {gpu.compute_capability}",
        "driver": "CUDA {}.{}, ".format(*driver.cuda) + nvidia.driver_build(),
        "environment": f"{_TF32}={os.environ.get(_TF32)}",
        "options": repr(sorted(_with_library(tensorrt_options(options, model.spec, target, None), options).items())),
    }
    return open_entry(facts, title=f"TensorRT engine of {model.path.name}", cache=options.cache)


def _with_library(own: Mapping[str, str], options: RuntimeOptions) -> dict[str, str]:
    """Ours, and what the user asked of the provider by its own names."""
    return {**own, **{name: value for name, value in options.library.items() if not is_of_session(name)}}
