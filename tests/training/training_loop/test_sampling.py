"""Numbered samples: exact shares, no sample twice, the same for any number of workers and processes."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.data.packing import Format, LeftOutError, PackedQuestion, pack
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.sampling import Mix, batches

FORM = Format(lambda words: [ord(c) % 90 + 1 for c in words], 0)


class Counted:
    """A source whose sample says its number."""

    def __init__(self, name, bad=lambda n: False, hidden=lambda n: False):
        self.name, self.bad, self.hidden = name, bad, hidden

    def sample(self, number):
        if self.bad(number):
            raise SpatialError(ErrorCode.BAD_NUMBER, f"row '{number}' is bad")
        if self.hidden(number):
            raise LeftOutError(str(number))
        return pack(f"{self.name} {number}", [], [PackedQuestion((("q", str(number)),), 0)], FORM)

    def subtasks(self):
        return frozenset()

    def digest(self):
        return self.name


def names(mix, count, **how):
    loader = batches(mix, lambda samples: collate(samples, 0), **{"start": 0, "batch": 2, **how})
    return [name for batch in islice(loader, count) for name in batch.names]


def test_shares_are_exact_and_numbers_run_without_gaps():
    mix = Mix([Counted("a"), Counted("b"), Counted("c")], [0.5, 0.3, 0.2], 3)
    places = [mix.place(n) for n in range(3000)]
    assert Counter(s for s, _ in places) == {0: 1500, 1: 900, 2: 600}
    for source in range(3):
        own = [n for s, n in places if s == source]
        assert own == list(range(len(own)))


def test_workers_and_processes_change_nothing():
    mix = Mix([Counted("a"), Counted("b")], [2, 1], 0)
    once = names(mix, 6)
    assert names(mix, 6, workers=2) == once
    first, second = (names(mix, 3, rank=r, world=2) for r in (0, 1))
    assert [
        n
        for a, b in zip(np.reshape(first, (3, 2)), np.reshape(second, (3, 2)), strict=True)
        for n in (*a, *b)
    ] == once
    assert names(mix, 3, start=6) == once[6:]


def test_bad_samples_are_replaced_and_said_and_hidden_ones_only_replaced():
    mix = Mix([Counted("a", bad=lambda n: n == 1, hidden=lambda n: n == 2)], [1], 0)
    (first, second) = islice(batches(mix, lambda s: collate(s, 0), start=0, batch=2), 2)
    assert first.problems == ("row '1' is bad",) and second.problems == ()
    assert len(first.names) == len(second.names) == 2
    assert not {"a 1", "a 2"} & {*first.names, *second.names}


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_are_all_bad_end_in_sentences(workers):
    mix = Mix([Counted("a", bad=lambda n: True)], [1], 0)
    (only,) = islice(batches(mix, lambda s: collate(s, 0), start=0, batch=2, workers=workers), 1)
    assert isinstance(only, tuple) and only[0] == "row '0' is bad"
