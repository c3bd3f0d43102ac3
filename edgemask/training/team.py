"""The processes that train one model: one, or those that `torchrun` has started on one host or on several."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgemask.models import prediction_device

_PATIENCE = timedelta(hours=6)  # while the first process evaluates, the others wait


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together.

    Attributes:
        device: where it computes.
        rank: its number, from 0.
        count: of all.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and talks."""
        return self.rank == 0

    def joined(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over the processes."""
        if self.count == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means over the processes, which all call it, of numbers that each has by the same names."""
        if self.count == 1:
            return dict(values)
        numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(numbers)
        return dict(zip(values, (numbers / self.count).tolist(), strict=True))

    def gathered(self, value: Any) -> list[Any]:
        """What each process has, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.count > 1:
            distributed.barrier()


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """Gives this process among those of `torchrun`; without it, the only one. A block within a block gives the same."""
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        yield Processes(prediction_device())
        return
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    opened = not distributed.is_initialized()
    if opened:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        if opened:
            distributed.destroy_process_group()
