"""What the doctor found, as records: frozen, and JSON as they are."""

from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """The CPU.

    Attributes:
        name: as the system tells it.
        architecture: such as x86_64 or aarch64.
        features: instructions that make models fast, as the system names them: avx2, avx512f, avx512_vnni, amx_int8,
            amx_bf16, asimd, asimddp, i8mm.
        count: processors of the machine.
        threads: processors that this process may use, by affinity and control group.
    """

    name: str
    architecture: str
    features: tuple[str, ...]
    count: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Main memory in bytes; None where the system does not tell.

    Attributes:
        total: of the machine.
        available: for new programs, without swapping.
        limit: of this process's control groups, the least of them; None without one.
    """

    total: int | None
    available: int | None
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """An NVIDIA Jetson; what its JetPack brings comes from a table, and is None where that does not have it.

    Attributes:
        model: the board, in the words of its device tree; empty where that is not shown, as in some containers.
        l4t: release of Jetson Linux; None where it is not shown.
        jetpack: release of JetPack that goes with it.
        python: of the system that JetPack installs.
        cuda: that JetPack brings.
        cudnn: that JetPack brings.
        tensorrt: that JetPack brings.
    """

    model: str
    l4t: str | None
    jetpack: str | None = None
    python: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    tensorrt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that the NVIDIA driver shows: its number as in `cuda:0`, and its memory in bytes."""

    index: int
    name: str
    compute_capability: str
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvidia:
    """The NVIDIA driver.

    Attributes:
        build: its own version, in its words; empty where it does not tell.
        cuda: the newest CUDA that it runs, such as 13.0; None without a driver that works.
        gpus: what it shows.
        problem: why there is no GPU; None where there is one.
        remedy: what to do about it.
    """

    build: str = ""
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A native library, asked for its own version; None with a problem where it could not be."""

    name: str
    version: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoDevice:
    """A device that OpenVINO sees, such as GPU.0, and its full name."""

    name: str
    full_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Where compiled models are kept, None where that cannot be told; how many there are, and their bytes."""

    folder: str | None = None
    models: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Something that works against the user here, though nothing may have failed yet; and what to do about it."""

    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What matters of a model file for where it can run.

    Attributes:
        path: the file.
        bytes: its size.
        precision: fp32, fp16 or int8.
        opset: of the standard operators.
        canvas: height and width of the network's input; None where it takes any.
        batch: images per run; None where it takes any number.
        notes: what follows of these for some devices.
    """

    path: str
    bytes: int
    precision: str
    opset: int
    canvas: tuple[int, int] | None
    batch: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A model opened on a device, in a process of its own, and run once on a blank image.

    Attributes:
        open_seconds: to open it, as `edgemask.load` does.
        run_seconds: of the first run, which is slower than later ones.
        image: height and width of the blank image.
        placement: what is not where it was promised, or else the shares of the time, in a line; None if not told.
        placed_well: whether every heavy operator ran where, and in the arithmetic that, was asked for; None as above.
        precision: types that the heavy operators computed in, those that took longest first; None as above.
    """

    open_seconds: float
    run_seconds: float
    image: tuple[int, int]
    placement: str | None = None
    placed_well: bool | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceVerdict:
    """Whether a device works here; with a model, whether that model runs on it.

    Attributes:
        device: its name, as for `--device`.
        automatic: whether `auto` would try it.
        usable: the answer.
        reason: why not, in a line; None where it is usable.
        remedy: the command, or the deed, that mends it.
        trial: what the model did there; None without a model, and where it did not run.
    """

    device: str
    automatic: bool
    usable: bool
    reason: str | None = None
    remedy: str | None = None
    trial: Trial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        system: operating system and its release.
        container: whether this process runs in a container.
        python: its version.
        packages: versions of the Python packages that matter, as far as they are installed.
        processor: the CPU.
        memory: of the machine.
        jetson: None on any other machine.
        nvidia: driver and GPUs.
        libraries: CUDA, cuDNN and TensorRT.
        openvino: what it sees.
        cache: of compiled models.
        conflicts: what works against the user here.
        model: None where none was given.
        devices: each that was looked at, in the order in which `auto` tries them.
        asked: the devices that the caller named.
    """

    system: str
    container: bool
    python: str
    packages: dict[str, str]
    processor: Processor
    memory: Memory
    jetson: Jetson | None
    nvidia: Nvidia
    libraries: tuple[Library, ...]
    openvino: tuple[OpenVinoDevice, ...]
    cache: Cache
    conflicts: tuple[Conflict, ...]
    model: ModelFacts | None
    devices: tuple[DeviceVerdict, ...]
    asked: tuple[str, ...]

    @property
    def chosen(self) -> str | None:
        """The device that `auto` takes; None where none works, or where others were asked for."""
        if self.asked and AUTO not in self.asked:
            return None
        return next((one.device for one in self.devices if one.automatic and one.usable), None)

    @property
    def failed(self) -> tuple[str, ...]:
        """The devices that the caller named and that do not work."""
        usable = {one.device for one in self.devices if one.usable}
        return tuple(name for name in self.asked if not (name in usable or (name == AUTO and self.chosen)))
