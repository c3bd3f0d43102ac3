"""Augmented batches of a data set for training, the same ones whether or not the run was cut."""

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from edgemask.augmentation import Augment, Sample
from edgemask.datasets import CocoDataset
from edgemask.errors import EdgemaskError

_EPOCHS, _IMAGES = 100_003, 1_000_003  # primes: no two epochs of neighbouring seeds share their random numbers


def batches(
    dataset: CocoDataset,
    augment: Augment,
    *,
    batch_size: int,
    seed: int,
    first: int,
    total: int,
    workers: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[list[Sample]]:
    """Gives the batches of the steps `first` to `total - 1`; each image comes once in an epoch.

    Args:
        dataset: what to load.
        augment: what is done to each image; its random numbers depend on seed, epoch and image alone.
        batch_size: images per batch; the last batch of an epoch may have fewer.
        seed: of order and augmentation.
        first: step to begin with.
        total: steps of all epochs together.
        workers: processes that load images.
        share: number of the process that trains and how many there are: together they take a batch so many times as
            large, and each has an image at least, though that comes twice in the epoch then.

    Raises:
        DatasetError: an image and its annotations do not fit together.
        ImageError: an image cannot be read.
    """
    loader = DataLoader(
        _Augmented(dataset, augment, seed),
        batch_sampler=_Order(len(dataset), batch_size, seed, first, total, share),
        collate_fn=list,
        num_workers=workers,
        # Forked workers inherit the locks of threads that they do not have.
        multiprocessing_context="forkserver" if workers else None,
    )
    return map(_samples, iter(loader))


class _Order(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index)."""

    def __init__(self, length: int, batch_size: int, seed: int, first: int, total: int, share: tuple[int, int]) -> None:
        self._length, self._seed, self._first, self._total = length, seed, first, total
        self._rank, self._count = share
        self._together = batch_size * self._count

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = math.ceil(self._length / self._together)
        for epoch in range(self._first // per_epoch, self._total // per_epoch):
            generator = torch.Generator().manual_seed(self._seed * _EPOCHS + epoch)
            order = torch.randperm(self._length, generator=generator).tolist()
            for position in range(per_epoch):
                if epoch * per_epoch + position >= self._first:
                    chosen = order[position * self._together : (position + 1) * self._together]
                    chosen += order[: max(0, self._count - len(chosen))]
                    yield [(epoch, index) for index in chosen[self._rank :: self._count]]


class _Augmented(Dataset[Sample | EdgemaskError]):
    """Items by (epoch, index).

    An error of ours is an item too: a loader's process that raised it would wrap it into a traceback.
    """

    def __init__(self, dataset: CocoDataset, augment: Augment, seed: int) -> None:
        self._dataset, self._augment, self._seed = dataset, augment, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample | EdgemaskError:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self._seed * _EPOCHS + epoch) * _IMAGES + index)
            try:
                return self._dataset.augmented(index, self._augment)
            except EdgemaskError as error:
                return error


def _samples(items: list[Sample | EdgemaskError]) -> list[Sample]:
    for item in items:
        if isinstance(item, EdgemaskError):
            raise item
    return cast(list[Sample], items)
