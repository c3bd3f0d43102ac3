"""OpenVINO on Intel CPUs, GPUs and NPUs, and on ARM CPUs."""

import functools
import hashlib
import logging
import sys
import threading
from collections.abc import Mapping
from typing import Any, cast

import edgemask
from edgemask.errors import DeviceUnavailable, EdgemaskError, UsageError
from edgemask.progress import waiting
from edgemask.runtimes.cache import Entry, open_entry
from edgemask.runtimes.functions import for_openvino
from edgemask.runtimes.modelfile import ModelFile
from edgemask.runtimes.options import UNCACHED, RuntimeOptions, check_options, openvino_properties
from edgemask.runtimes.profiles import NodeRun, openvino_nodes
from edgemask.runtimes.runtime import Array, Runtime, failure

# Importing openvino tells its makers so, by a package that it can do without: it would fork, and ask the network.
sys.modules.setdefault("openvino_telemetry", cast("Any", None))

AUTO = "AUTO"
_STARTING = threading.Lock()
_PROFILED_RUNS = 2  # the first one is for warm-up
# Beside what the file has. The CPU's float16 is left out: OpenVINO 2026.4 never ends compiling for it on x86-64.
_PRECISIONS = {"CPU": ("bf16",), "GPU": ("fp16",), "NPU": ("fp16",), AUTO: ()}
_REMEDIES = {
    "GPU": "install Intel's OpenCL and Level Zero drivers, and let this user into the group render",
    "NPU": "install Intel's NPU driver, and let this user into the group render",
}


class OpenVino(Runtime):
    """OpenVINO; a target is its name of the device: CPU, GPU, NPU, or AUTO, which chooses among them by itself.

    Arithmetic is float32 unless asked otherwise; of a file in FP16 the CPU takes the rounded weights, a GPU or NPU
    computes in float16. Layers of a file in INT8 are as it says.
    """

    @classmethod
    def unavailable(cls, target: str) -> DeviceUnavailable | None:
        """See `Runtime.unavailable`."""
        try:
            available = shared_core().available_devices
        except (ImportError, RuntimeError) as error:
            return DeviceUnavailable(f"openvino cannot be loaded ({error})", "pip install 'edgemask[openvino]'")
        if target != AUTO and not any(name.split(".")[0] == target for name in available):
            return DeviceUnavailable(
                f"OpenVINO sees no {target} here, only {', '.join(available) or 'nothing'}",
                _REMEDIES.get(target, "install its driver"),
            )
        return None

    def __init__(
        self, model: ModelFile, target: str, options: RuntimeOptions = UNCACHED, *, fallback: bool = False
    ) -> None:
        """Opens the model as it was compiled the last time, or compiles it. See `Runtime`."""
        self.device = f"openvino:{target}"
        check_options(options, self.device, precisions=_PRECISIONS[target], others=["streams", "library"])
        if target == "NPU" and options.precision == "file" and model.spec.precision != "fp16":
            raise UsageError("an NPU computes in float16, not in float32", "allow it with --option precision=fp16")
        self._target = target
        self._properties = openvino_properties(options, model.spec, target) | dict(options.library)
        try:
            self._compiled: Any = _compiled(shared_core(), model, target, options, self._properties)
        except EdgemaskError:
            raise
        except Exception as error:
            raise failure(f"OpenVINO cannot open {model.path} on {self.device}", error) from error
        self._used = self._compiled.get_property("EXECUTION_DEVICES")
        if any(target not in (AUTO, name.split(".")[0]) for name in self._used):
            raise DeviceUnavailable(
                f"OpenVINO opened the model on {', '.join(self._used)}, not on {target}",
                "`edgemask doctor` says which devices work",
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

    @property
    def promised(self) -> tuple[str, ...]:
        """See `Runtime.promised`."""
        return (", ".join(self._used),)

    def profile(self, model: ModelFile, inputs: Mapping[str, Array]) -> tuple[NodeRun, ...]:
        """See `Runtime.profile`."""
        properties = self._properties | {"PERF_COUNT": "YES"}
        try:
            request = _compiled(shared_core(), model, self._target, UNCACHED, properties).create_infer_request()
            for _ in range(_PROFILED_RUNS):
                request.infer(dict(inputs))
        except EdgemaskError:
            raise
        except Exception as error:
            raise failure(f"OpenVINO failed on {self.device}", error) from error
        return openvino_nodes(request.profiling_info, *self.promised)

    def close(self) -> None:
        """See `Runtime.close`."""
        self._requests = threading.local()
        self._compiled = None


def shared_core() -> Any:
    """OpenVINO itself, once for the whole process, and never let go of.

    On processors with AMX each instance of its CPU plugin gives the thread an alternate signal stack, and frees it with
    itself, though another instance may put it back later. The next signal, such as Ctrl-C, then ends the process by
    SIGSEGV. OpenVINO's documentation, too, asks for one Core in an application.

    Raises:
        ImportError: openvino is not installed, or cannot be loaded.
    """
    import openvino

    with _STARTING:
        return _core_of(openvino.Core)  # noqa: TID251  the only one of a process


@functools.cache
def _core_of(kind: type) -> Any:
    return kind()


def _compiled(core: Any, model: ModelFile, target: str, options: RuntimeOptions, properties: Mapping[str, str]) -> Any:
    """The model, imported as it was compiled the last time where that is the very same."""
    entry = None if target == AUTO or options.cache is False else _entry(core, model, target, options, properties)
    kept = None if entry is None else entry.load()
    if kept is not None:
        try:
            return core.import_model(kept, target, dict(properties))
        except RuntimeError as error:
            reason = str(failure("it was refused", error)).partition("\n")[0]
            logging.getLogger("edgemask").warning("compiled %s is built anew: %s", model.path.name, reason)
    with waiting(f"compiling {model.path.name} for {target}"):
        graph = core.read_model(for_openvino(model.proto).SerializeToString())
        compiled = core.compile_model(graph, target, dict(properties))
    if entry is not None:
        _keep(entry, compiled, model)
    return compiled


def _keep(entry: Entry, compiled: Any, model: ModelFile) -> None:
    """Keeps a compiled model, if the device can write it."""
    try:
        data = compiled.export_model().getvalue()
    except RuntimeError as error:
        reason = str(failure("it cannot be written", error)).partition("\n")[0]
        logging.getLogger("edgemask").warning("compiled %s is not kept: %s", model.path.name, reason)
        return
    entry.store(data)


def _entry(
    core: Any, model: ModelFile, target: str, options: RuntimeOptions, properties: Mapping[str, str]
) -> Entry | None:
    """Where the compiled model is kept: apart for all that it depends on."""
    import openvino

    versions = core.get_versions(target)
    facts = {
        "model": hashlib.sha256(model.data).hexdigest(),  # its own digest may be that of the file it was made from
        "library": f"openvino {openvino.__version__}",
        "edgemask": edgemask.__version__,
        "device": f"{target}: {core.get_property(target, 'FULL_DEVICE_NAME')}",
        "capabilities": repr(sorted(core.get_property(target, "OPTIMIZATION_CAPABILITIES"))),
        "driver": repr(sorted((name, str(version.build_number)) for name, version in versions.items())),
        "options": repr(sorted(properties.items())),
    }
    return open_entry(facts, title=f"compiled {model.path.name} for openvino:{target}", cache=options.cache)
