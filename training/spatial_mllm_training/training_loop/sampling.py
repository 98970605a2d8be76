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

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.data.packing import Sample
from spatial_mllm_training.training_loop.batch import Batch

TRIES = 16


class SampleSource(Protocol):
    """An endless, numbered supply of samples."""

    def sample(self, number: int) -> Sample:
        """Sample `number`, a function of it alone; SpatialError names what is wrong with it."""

    def digest(self) -> str:
        """Says whether two runs had the same data."""


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


class Numbered(Dataset[tuple[Sample, tuple[str, ...]]]):
    """Samples by number; one that cannot be made is replaced, and said."""

    FAR = 1 << 40  # numbers that a run never reaches: replacements are no sample's twin in time

    def __init__(self, mix: Mix) -> None:
        self.mix = mix

    def __getitem__(self, number: int) -> tuple[Sample, tuple[str, ...]]:
        problems: list[str] = []
        for attempt in range(TRIES):
            try:
                where = number if not attempt else number * TRIES + attempt + self.FAR
                return self.mix.sample(where), tuple(problems)
            except SpatialError as error:
                problems.append(error.sentence)
        raise TooManyProblemsError(problems[0])


class TooManyProblemsError(RuntimeError):
    """So many samples in a row cannot be made that the data, not a row, are at fault."""


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
) -> DataLoader[Batch]:
    """Endless batches from sample number `start` on; the number of workers changes nothing in them."""

    def join(drawn: Sequence[tuple[Sample, tuple[str, ...]]]) -> Batch:
        problems = tuple(p for _, more in drawn for p in more)
        return replace(collate([sample for sample, _ in drawn]), problems=problems)

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
