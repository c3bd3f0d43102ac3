"""OpenVINO on Intel CPUs, GPUs and NPUs, and on ARM CPUs."""

import threading
from collections.abc import Mapping
from typing import Any

from edgemask.errors import DeviceUnavailable, EdgemaskError
from edgemask.runtimes.functions import for_openvino
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.runtime import Array, Runtime, failure, thread_count


class OpenVino(Runtime):
    """OpenVINO; a target is its name of the device: CPU, GPU, NPU.

    Arithmetic is float32, of a file in FP16 with its rounded weights; layers of a file in INT8 are as it says.
    """

    @classmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        """See `Runtime.unavailable`."""
        try:
            import openvino

            available = openvino.Core().available_devices
        except (ImportError, RuntimeError) as error:
            return DeviceUnavailable(f"openvino cannot be loaded ({error})", "pip install 'edgemask[openvino]'")
        if not any(name.split(".")[0] == target for name in available):
            return DeviceUnavailable(
                f"OpenVINO sees no {target} here, only {', '.join(available) or 'nothing'}", "install its driver"
            )
        return None

    def __init__(self, model: ModelFile, target: str) -> None:
        """Opens the model for short latency."""
        import openvino

        self.device = f"openvino:{target}"
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if target == "CPU":
            options["INFERENCE_NUM_THREADS"] = thread_count()
        core = openvino.Core()
        try:
            graph = core.read_model(for_openvino(model.proto).SerializeToString())
            self._compiled: Any = core.compile_model(graph, target, options)
        except EdgemaskError:
            raise
        except Exception as error:
            raise failure(f"OpenVINO cannot open {model.path} on {self.device}", error) from error
        used = self._compiled.get_property("EXECUTION_DEVICES")
        if any(name.split(".")[0] != target for name in used):
            raise DeviceUnavailable(
                f"OpenVINO opened the model on {', '.join(used)}, not on {target}", "try another device"
            )
        self._outputs = [output.get_any_name() for output in self._compiled.outputs]
        self._requests = threading.local()  # a request serves one thread at a time

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runtime.run`; may be called from several threads at once."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        request = self._requests.own
        try:
            request.infer(dict(inputs))
        except Exception as error:
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise failure(f"OpenVINO failed on {self.device} with {shapes}", error) from error
        # The request reuses its memory in the next run.
        return {name: request.get_tensor(name).data.copy() for name in self._outputs}

    def close(self) -> None:
        """See `Runtime.close`."""
        self._requests = threading.local()
        self._compiled = None
