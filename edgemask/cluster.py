"""Work on many images, spread by Ray Data over the processes of a cluster; results come back in their order.

Workers read images and models by the paths that the driver names, so every node needs those files, this edgemask and
its runtimes. Ray's own usage reports are off.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

import edgemask
from edgemask.checks import whole
from edgemask.errors import DependencyMissing, DeviceUnavailable, EdgemaskError, ModelFileError, UsageError
from edgemask.images import load_image

if TYPE_CHECKING:
    from edgemask.detections import Detections
    from edgemask.runtimes import Detector, RuntimeOptions
    from edgemask.runtimes.inputs import Boxes
    from edgemask.semantic import SemanticMap

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # edgemask sends nothing, and what it starts does not either
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's native code writes to the terminal; errors come as exceptions too
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_MOST_WORKERS = 9999
_TOGETHER = 4  # items that are lost and done again with a worker; each such block costs Ray some milliseconds
_MOST_BLOCKS = 2000
_TRIES = 3  # of a block whose worker dies, besides the first: an image may itself be what kills it

Item = TypeVar("Item")
Opened = TypeVar("Opened")
Result = TypeVar("Result")
Found = "Detections | SemanticMap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where work is spread to.

    Attributes:
        address: `HOST:PORT` of a Ray cluster's head, seen from a node of it, or `auto` for the one that this machine
            belongs to; None starts one on this machine, reachable from it alone, for as long as the work takes.
        workers: processes that work, each with a model of its own; None: as many as the cluster has room for.

    Raises:
        UsageError: a value that cannot be meant.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            whole(1, _MOST_WORKERS)("workers", self.workers)
        if self.address is not None and self.address.startswith("ray://"):
            raise UsageError(
                f"the address {self.address} is of Ray Client, which Ray Data is not made for",
                "run the command on a node of the cluster, with --address auto or HOST:PORT",
            )


class Connection:
    """A cluster that was joined, or started; a context manager."""

    def __init__(self, cluster: Cluster) -> None:
        """Joins or starts it.

        Raises:
            DependencyMissing: Ray is not installed.
            DeviceUnavailable: no cluster answers at the address.
        """
        self.cluster = cluster
        self._ray = _import_ray()
        self._own = not self._ray.is_initialized()  # one that the caller has joined stays
        if self._own:
            self._join()

    def _join(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        address = self.cluster.address
        try:
            if address is None:
                from edgemask.processors import thread_count

                self._ray.init(
                    "local", num_cpus=thread_count(), include_dashboard=False, _node_ip_address="127.0.0.1", **quiet
                )
            else:
                self._ray.init(address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            first = str(error).strip().partition("\n")[0]
            if address is None:
                raise DeviceUnavailable(f"Ray cannot be started here: {first}", "try --engine local") from error
            raise DeviceUnavailable(
                f"no Ray cluster answers at {address}: {first}",
                "start one with `ray start --head` and name its HOST:PORT, or leave --address out for this machine",
            ) from error

    def spread(
        self,
        items: Sequence[Item],
        opening: Callable[[], Opened],
        work: Callable[[Opened, Item], Result],
        *,
        threads: int,
        on_gpu: bool = False,
    ) -> Generator[Result, None, None]:
        """Works on items, each once, whichever workers die.

        Args:
            items: what to work on; they travel to the workers, as everything else that is given here.
            opening: makes what a worker works with, once in each.
            work: makes the result of one item; an error of it is raised in the item's place.
            threads: processors that Ray keeps for each worker.
            on_gpu: whether it keeps a GPU for each of them too.

        Yields:
            The results, in the items' order.

        Raises:
            UsageError: more workers than the cluster has room for.
            DeviceUnavailable: it has room for none, or an item's workers have died again and again.
        """
        workers = self._workers(threads, on_gpu=on_gpu)
        blocks = min(len(items), max(workers, min(-(-len(items) // _TOGETHER), _MOST_BLOCKS)))
        if not items:
            return
        import ray.data
        from ray.exceptions import RayError

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        rows = [{"number": number, "job": _Sealed(item)} for number, item in enumerate(items)]
        results = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Worker,
            fn_constructor_args=(opening, work, os.getcwd(), edgemask.__version__),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
            num_cpus=threads,
            num_gpus=1 if on_gpu else None,
            max_restarts=-1,
            max_task_retries=_TRIES,
        )
        following = 0
        try:
            for row in results.iter_rows():
                if row["number"] != following:
                    raise EdgemaskError(f"fault in edgemask: result {row['number']} came in the place of {following}")
                following += 1
                yield row["result"].opened()
        except RayError as error:
            raise _failure(error, following) from error
        if following != len(items):
            raise EdgemaskError(f"fault in edgemask: {following} results came of {len(items)} images")

    def has_gpus(self) -> bool:
        """Whether Ray knows of a GPU in the cluster."""
        return self._ray.cluster_resources().get("GPU", 0) >= 1

    def close(self) -> None:
        """Leaves the cluster, and ends it where it was started here."""
        if self._own:
            self._own = False
            self._ray.shutdown()

    def __enter__(self) -> Self:
        """Gives the connection itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the cluster."""
        self.close()

    def _workers(self, threads: int, *, on_gpu: bool) -> int:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(
            int(min(node.get("CPU", 0) // threads, node.get("GPU", 0) if on_gpu else _MOST_WORKERS)) for node in nodes
        )
        needed = f"{threads} processor{'s' if threads > 1 else ''}{' and a GPU' if on_gpu else ''} each"
        if not room:
            raise DeviceUnavailable(
                f"the cluster has no room for a worker of {needed}", "give fewer with --option threads=N"
            )
        if (self.cluster.workers or 0) > room:
            raise UsageError(
                f"{self.cluster.workers} workers of {needed} are more than the {room} that the cluster has room for",
                f"give at most --workers {room}, or leave it out",
            )
        return self.cluster.workers or room


class _Sealed(Generic[Item]):
    """A value that is one object to Ray Data's tables, whatever it is; or the error that came in its place."""

    def __init__(self, value: Item | None, error: Exception | None = None) -> None:
        self._value, self._error = value, error

    def opened(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class _Worker:
    """What Ray runs in each process: the batches of a table in, tables with results out."""

    def __init__(self, opening: Callable[[], Any], work: Callable[[Any, Any], Any], folder: str, version: str) -> None:
        self._work, self._opened = work, _Sealed[Any](None)
        with contextlib.suppress(OSError):  # of a node where the driver's folder is not
            os.chdir(folder)  # so that a path means there what it means to the driver
        try:
            if edgemask.__version__ != version:
                raise DependencyMissing(
                    f"a node of the cluster has edgemask {edgemask.__version__}, not {version}",
                    "install the same release on all nodes",
                )
            self._opened = _Sealed(opening())
        except Exception as error:  # an error here would make Ray start worker after worker
            self._opened = _Sealed(None, error)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Works on one block of the table."""
        results = np.empty(len(batch["job"]), object)
        for index, job in enumerate(batch["job"]):
            try:
                results[index] = _Sealed(self._work(self._opened.opened(), job.opened()))
            except Exception as error:
                results[index] = _Sealed(None, error)
        return {"number": batch["number"], "result": results}


class ClusterDetector:
    """A model opened by every worker of a cluster: the stream of `edgemask.runtimes.Detector`, for many images.

    Attributes:
        spec: what the model file says about itself.
        device: as asked for, until the first result says which it is; the same in all workers.
        refusals: devices that were tried before that one, with the reasons.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cluster: Cluster,
        device: str = "auto",
        options: "RuntimeOptions | None" = None,
        pictures: bool = True,
    ) -> None:
        """Reads the model file here, and joins the cluster; its workers open the file when they are needed.

        Args:
            path: an ONNX file written by edgemask, that all nodes have.
            cluster: where it runs.
            device: as for `edgemask.load`, without a number: Ray gives every worker a GPU of its own.
            options: how the workers open it; `threads` is 1 unless it is said.
            pictures: whether images are read here again, for what is drawn; without it the stream's are empty.

        Raises:
            UsageError: no such device, or a numbered one.
            ModelFileError: no sound model file.
            DependencyMissing: Ray is not installed.
            DeviceUnavailable: no cluster answers at the address.
        """
        from edgemask.runtimes import RuntimeOptions, read_model
        from edgemask.runtimes.devices import device_named

        if device != "auto" and device_named(device).name.partition(":")[2].isdecimal():
            raise UsageError(
                f"{device} is one GPU of one machine, and Ray gives each worker a GPU of its own",
                f"leave out the number: --device {device.partition(':')[0]}",
            )
        model = read_model(path)
        self.spec, self.device, self.refusals = model.spec, device, tuple[str, ...]()
        self._path, self._digest, self._pictures = str(path), model.digest, pictures
        self._options = options or RuntimeOptions()
        self._asked = device
        self._connection = Connection(cluster)

    def stream(
        self, sources: Iterable[str | os.PathLike[str]], *, proposals: "Iterable[Boxes] | None" = None
    ) -> "Generator[tuple[NDArray[np.uint8], Detections | SemanticMap], None, None]":
        """As `Detector.stream`, of image files.

        Args:
            sources: paths of images that all nodes have; all are taken at once.
            proposals: as for `Detector.stream`.

        Yields:
            For each image, in order: its pixels as uint8 [H, W, 3] RGB, or [0, 0, 3] without `pictures`, and what was
            found.

        Raises:
            EdgemaskError: in the place of its image, as in one process; or where workers open different devices.
        """
        from edgemask.runtimes.inputs import refuse_proposals

        if (proposals is None) != (self.spec.proposals == "rpn"):
            refuse_proposals(self.spec)
        paths = [os.fspath(source) for source in sources]
        boxes: list[Boxes | None] = [None] * len(paths) if proposals is None else list(proposals)
        threads = self._options.threads or 1
        on_gpu = self._asked in ("cuda", "tensorrt") or (self._asked == "auto" and self._connection.has_gpus())
        results = self._connection.spread(
            list(zip(paths, boxes, strict=True)),
            _Opening(self._path, self._digest, self._asked, _with_threads(self._options, threads)),
            _found,
            threads=threads,
            on_gpu=on_gpu,
        )
        with contextlib.closing(results):
            for number, (path, (device, refusals, found)) in enumerate(zip(paths, results, strict=True)):
                if number and device != self.device:
                    raise DeviceUnavailable(
                        f"some workers run the model on {self.device}, others on {device}",
                        "name one with --device, so that all results are of one kind",
                    )
                self.device, self.refusals = device, refusals
                yield load_image(path) if self._pictures else np.empty((0, 0, 3), np.uint8), found

    def close(self) -> None:
        """Leaves the cluster."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Gives the detector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the cluster."""
        self.close()


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens a model file in a worker, if it is the driver's."""

    path: str
    digest: str
    device: str
    options: "RuntimeOptions"

    def __call__(self) -> "Detector":
        from edgemask.runtimes import Detector, read_model

        model = read_model(self.path)
        if model.digest != self.digest:
            raise ModelFileError(
                f"{self.path} is another file on a node of the cluster", "give all nodes the same files, as a share does"
            )
        return Detector(model, self.device, options=self.options)


def _found(detector: "Detector", job: "tuple[str, Boxes | None]") -> tuple[str, tuple[str, ...], Any]:
    """What a worker finds on an image, and where."""
    path, boxes = job
    found = detector.segment(path) if "semantic" in detector.spec.tasks else detector.predict(path, proposals=boxes)
    return detector.device, detector.refusals, found
