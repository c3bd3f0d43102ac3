"""ONNX Runtime, on its CPU provider; `edgemask.runtimes.ort_gpu` adds the others."""

import os
from collections.abc import Mapping
from typing import Any

from edgemask.checks import did_you_mean
from edgemask.errors import DeviceUnavailable, UsageError
from edgemask.files import scratch
from edgemask.runtimes.assignment import strays
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.options import (
    OPTION_NAMES,
    UNCACHED,
    RuntimeOptions,
    changing,
    check_options,
    session_entries,
    session_threads,
)
from edgemask.runtimes.profiles import NodeRun, onnxruntime_nodes
from edgemask.runtimes.runtime import Array, Runtime, failure
from edgemask.runtimes.widening import float32_data

CPU_PROVIDER = "CPUExecutionProvider"
_PROFILED_RUNS = 2  # the first one is for warm-up
_FROM_MODEL = "ORT_LOAD_CONFIG_FROM_MODEL"


class OrtCpu(Runtime):
    """ONNX Runtime's CPU provider. Arithmetic is float32, of a file in FP16 with its rounded weights."""

    provider = CPU_PROVIDER
    installation = "pip install 'edgemask[cpu]'"

    @classmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        """See `Runtime.unavailable`; the CPU has no targets."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            return DeviceUnavailable(f"onnxruntime cannot be imported ({error})", cls.installation)
        if os.environ.get(_FROM_MODEL) == "1":  # sessions take the library's defaults then, whatever is asked
            return DeviceUnavailable(f"{_FROM_MODEL}=1 makes ONNX Runtime ignore the options it is given", "unset it")
        return None

    def __init__(
        self, model: ModelFile, target: str, options: RuntimeOptions = UNCACHED, *, fallback: bool = False
    ) -> None:
        """Opens the model; then holds the providers and the nodes' places against the promise. See `Runtime`."""
        self.device = self._name(target)
        self._target, self._options = target, options
        self._check(options)
        self._session: Any = self._open(model)
        used = self._session.get_providers()
        if used[0] != self.provider:
            raise DeviceUnavailable(
                f"ONNX Runtime opened the model on {used[0]}, not on {self.provider}", self._remedy()
            )
        self.strays = strays(self._session, self.promised)
        if self.strays and not fallback:
            raise DeviceUnavailable(
                f"not all of {model.path} would run on {self.device}: {', '.join(self.strays)}",
                "take a newer onnxruntime-gpu, or allow it with --fallback (in Python fallback=True)",
            )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runtime.run`; may be called from several threads at once."""
        try:
            values = self._values(self._session, inputs)
        except Exception as error:
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise failure(f"ONNX Runtime failed on {self.device} with {shapes}", error) from error
        return dict(zip(self._outputs, values, strict=True))

    def profile(self, model: ModelFile, inputs: Mapping[str, Array]) -> tuple[NodeRun, ...]:
        """See `Runtime.profile`."""
        with scratch() as folder:
            session = self._open(model, profile=str(folder / "profile"))
            try:
                for _ in range(_PROFILED_RUNS):
                    self._values(session, inputs)
            except Exception as error:
                raise failure(f"ONNX Runtime failed on {self.device}", error) from error
            return onnxruntime_nodes(session.end_profiling())

    def close(self) -> None:
        """See `Runtime.close`."""
        self._session = None

    def _open(self, model: ModelFile, *, profile: str | None = None) -> Any:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = session_threads(self._options)
        if profile is not None:
            settings.enable_profiling, settings.profile_file_prefix = True, profile
        # What ONNX Runtime would print, with the names that stand in the file, its exceptions say too.
        settings.log_severity_level = 4
        # Memory patterns are made for one shape; with changing shapes they pile up.
        settings.enable_mem_pattern = not changing(model.spec)
        entries = session_entries(alone=self.provider == CPU_PROVIDER)
        for name, value in {**entries, **self._library_entries()}.items():
            settings.add_session_config_entry(name, value)
        try:
            return onnxruntime.InferenceSession(
                self._data(model),
                settings,
                providers=self._providers(model),
                enable_fallback=0,  # the library's own is silent
            )
        except Exception as error:
            raise failure(f"ONNX Runtime cannot open {model.path} on {self.device}", error) from error

    def _check(self, options: RuntimeOptions) -> None:
        check_options(options, self.device, others=["streams", "library"])
        if unknown := [name for name in options.library if not is_of_session(name)]:
            raise UsageError(
                f"{self.device} has no option {', '.join(unknown)}",
                did_you_mean(
                    unknown[0],
                    OPTION_NAMES,
                    "entries of an ONNX Runtime session have a dot, such as session.intra_op.allow_spinning=0",
                ),
            )

    def _values(self, session: Any, inputs: Mapping[str, Array]) -> list[Array]:
        values: list[Array] = session.run(self._outputs, dict(inputs))
        return values

    @classmethod
    def _name(cls, target: str) -> str:
        return "cpu"

    @property
    def promised(self) -> tuple[str, ...]:
        """See `Runtime.promised`."""
        return (self.provider,)

    def _data(self, model: ModelFile) -> bytes:
        return float32_data(model)

    def _library_entries(self) -> Mapping[str, str]:
        return self._options.library

    def _providers(self, model: ModelFile) -> list[Any]:
        return [self.provider]

    def _remedy(self) -> str:
        return "reinstall onnxruntime"


def is_of_session(name: str) -> bool:
    """Whether an option of ONNX Runtime is one of its sessions, not of a provider."""
    return "." in name
