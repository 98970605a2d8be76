"""Which sample comes when: number i of a run is the same whoever prepares it, and after a restart.

Knows no sample: sources make them from a number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.data.packing import LeftOutError, Sample
from spatial_mllm_training.training_loop.batch import Batch

TRIES = 16


class SampleSource(Protocol):
    """An endless, numbered supply of samples."""

    def sample(self, number: int) -> Sample:
        """Sample `number`, a function of it alone; SpatialError names what is wrong with it."""

    def digest(self) -> str:
        """Says whether two runs had the same data."""

    def subtasks(self) -> frozenset[str]:
        """Published names of the subtasks whose answers it teaches."""


class Mix:
    """Sources interleaved by weight: of every `BLOCK` samples each source gives its share exactly."""

    BLOCK = 1000

    def __init__(self, sources: Sequence[SampleSource], weights: Sequence[float], seed: int) -> None:
        self.sources = list(sources)
        shares = np.asarray(weights, np.float64) / np.sum(weights)
        bounds = np.round(np.cumsum(shares) * self.BLOCK).astype(int)
        self.counts = np.diff(bounds, prepend=0)
        order = np.repeat(np.arange(len(sources)), self.counts)
        self._order = np.random.default_rng([seed, 7]).permutation(order)
        seen = np.zeros(len(sources), int)
        self._rank = np.empty(self.BLOCK, int)
        for place, source in enumerate(self._order):
            self._rank[place] = seen[source]
            seen[source] += 1

    def place(self, number: int) -> tuple[int, int]:
        """(source, number in that source) of sample `number`."""
        block, place = divmod(number, self.BLOCK)
        source = int(self._order[place])
        return source, block * int(self.counts[source]) + int(self._rank[place])

    def sample(self, number: int) -> Sample:
        source, own = self.place(number)
        return self.sources[source].sample(own)


class Numbered(Dataset[tuple[Sample | None, tuple[str, ...]]]):
    """Samples by number; one that cannot be made is replaced, and said."""

    APART = 1009
    """Numbers between a sample and its replacement: what comes instead is not what comes next anyway."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix

    def __getitem__(self, number: int) -> tuple[Sample | None, tuple[str, ...]]:
        """(sample, sentences about those left out); None after `TRIES` numbers that all failed."""
        problems: list[str] = []
        for attempt in range(TRIES):
            try:
                return self.mix.sample(number + attempt * self.APART), tuple(problems)
            except SpatialError as error:
                problems.append(error.sentence)
            except LeftOutError:
                pass
        return None, tuple(problems)


class Numbers(Sampler[list[int]]):
    """Lists of sample numbers for one process, from `start` on, without end."""

    def __init__(self, start: int, batch: int, rank: int, world: int) -> None:
        self.start, self.batch, self.rank, self.world = start, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for turn in itertools.count():
            first = self.start + (turn * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))


def batches(
    mix: Mix,
    collate: Callable[[Sequence[Sample]], Batch],
    *,
    start: int,
    batch: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin: bool = False,
) -> DataLoader[Batch | tuple[str, ...]]:
    """Endless batches from sample number `start` on; the number of workers changes nothing in them.

    Where no sample of a batch can be made, the sentences why come in its place.
    """

    def join(drawn: Sequence[tuple[Sample | None, tuple[str, ...]]]) -> Batch | tuple[str, ...]:
        problems = tuple(p for _, more in drawn for p in more)
        samples = [sample for sample, _ in drawn if sample is not None]
        return replace(collate(samples), problems=problems) if samples else problems

    return DataLoader(
        Numbered(mix),
        batch_sampler=Numbers(start, batch, rank, world),
        collate_fn=join,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
        # memory-mapped scenes and tables are shared with forked workers, not copied
        multiprocessing_context="fork" if workers else None,
    )


def digests(sources: Mapping[str, SampleSource]) -> dict[str, str]:
    return {name: source.digest() for name, source in sources.items()}


def subtasks(sources: Mapping[str, SampleSource]) -> tuple[str, ...]:
    """Names of the subtasks that any of the sources teaches, in the published order."""
    taught = frozenset[str]().union(*(source.subtasks() for source in sources.values()))
    return tuple(name for name in tasks.names() if name in taught)
