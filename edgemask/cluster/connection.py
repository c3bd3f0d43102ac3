"""Work on many images, spread by Ray Data over the processes of a cluster; results come back in their order.

Workers read images and models by the paths that the driver names, so every node needs those files, this edgemask and
its runtimes. Ray's own usage reports are off.
"""

import contextlib
import os
import re
import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

import edgemask
from edgemask.checks import refuse, whole
from edgemask.errors import DependencyMissing, DeviceUnavailable, EdgemaskError, UsageError
from edgemask.offspring import forget, watched

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # edgemask sends nothing, and what it starts does not either
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's native code writes to the terminal; errors come as exceptions too
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # each of 40 s, where something answers at the address that is no cluster
}
# On a machine of its own Ray asks for no address by which others could reach it; the name is from other systems.
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_ADDRESS = re.compile(r"\[?([^\[\]/\s]+)\]?:([0-9]{1,5})")
_ANSWER = 5  # seconds within which a cluster's head has to answer: Ray itself would ask for a quarter of an hour
_MOST_WORKERS = 9999
_TOGETHER = 4  # items that are lost and done again with a worker; each such block costs Ray some milliseconds
_MOST_BLOCKS = 2000
# Ray gives a dead worker's block to another, without end: an image may itself be what kills them.
_PATIENCE = 1800  # seconds without any result; a TensorRT engine takes minutes

Item = TypeVar("Item")
Opened = TypeVar("Opened")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where work is spread to.

    Attributes:
        address: `HOST:PORT` of a Ray cluster's head; this machine must be a node of it. None starts a cluster on this
            machine, reachable from it alone, for as long as the work takes.
        workers: processes that work, each with a model of its own; None: as many as the cluster has room for.

    Raises:
        UsageError: a value that cannot be meant.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            whole(1, _MOST_WORKERS)("workers", self.workers)
        if self.address is not None and not _ADDRESS.fullmatch(self.address):
            refuse(
                "address",
                "HOST:PORT of a Ray cluster's head",
                self.address,
                "`ray start --head` prints it; Ray Client (ray://) is not what Ray Data is made for",
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
        self._ray = _import_ray(alone=cluster.address is None)
        self._own = not self._ray.is_initialized()  # one that the caller has joined stays
        self._started = set[int]()
        if self._own:
            self._join()

    def _join(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        address = self.cluster.address
        try:
            if address is None:
                from edgemask.processors import thread_count

                with watched() as self._started:
                    self._ray.init("local", num_cpus=thread_count(), include_dashboard=False, **quiet)
            else:
                _await_answer(address)
                self._ray.init(address, **quiet)
        except (RuntimeError, ValueError, OverflowError, OSError) as error:
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

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = _PATIENCE
        rows = [{"number": number, "job": _Sealed(item)} for number, item in enumerate(items)]
        results = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Worker,
            fn_constructor_args=(opening, work, os.getcwd(), edgemask.__version__),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
            num_cpus=threads,
            num_gpus=1 if on_gpu else None,
        )
        following = 0
        for row in _rows(results.iter_rows()):
            if row["number"] != following:
                raise EdgemaskError(f"fault in edgemask: result {row['number']} came in the place of {following}")
            following += 1
            yield row["result"].opened()
        if following != len(items):
            raise EdgemaskError(f"fault in edgemask: {following} results came of {len(items)} images")

    def has_gpus(self) -> bool:
        """Whether Ray knows of a GPU in the cluster."""
        return float(self._ray.cluster_resources().get("GPU", 0)) >= 1

    def close(self) -> None:
        """Leaves the cluster, and ends it where it was started here."""
        if self._own:
            self._own = False
            self._ray.shutdown()
            forget(self._started)

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


def _import_ray(*, alone: bool) -> Any:
    for name, value in (_SETTINGS | (_ALONE if alone else {})).items():  # Ray reads them when it is imported
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DependencyMissing(
            f"a cluster needs the package {error.name or 'ray'}, which is not installed",
            "pip install 'edgemask[cluster]'",
        ) from error
    return ray


def _await_answer(address: str) -> None:
    """Does nothing where something listens at an address.

    Raises:
        OSError: nothing does.
    """
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    with socket.create_connection((found[1], int(found[2])), timeout=_ANSWER):
        pass


def _rows(rows: Iterable[dict[str, Any]]) -> Generator[dict[str, Any], None, None]:
    """Rows of a table, and what it means that Ray gives no more of them; errors of the work itself are in the rows."""
    iterator = iter(rows)
    while True:
        try:
            row = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise _failure(error) from error
        yield row


def _failure(error: Exception) -> EdgemaskError:
    words = f"{type(error).__name__}: {error}"
    if "No module named 'edgemask" in words:
        return DependencyMissing(
            "a node of the cluster has no edgemask", "install the same release, with a runtime, on all nodes"
        )
    if "TimeoutError" in words or "died" in words or "unavailable" in words:
        return DeviceUnavailable(
            "the cluster's workers died, or gave no result for half an hour",
            "is there enough memory for a model in each? give fewer --workers; --engine local finds a killing image",
        )
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return EdgemaskError(f"fault in edgemask: Ray gave no result: {lines[0]} ... {lines[-1]}")
