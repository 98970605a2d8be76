"""Medians of spelled numbers against numpy's over the whole distribution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core.model.numbers import NumberReader
from spatial_mllm_core.tasks.text import narrowed, widened

DIGITS = 3
IDS = {**{str(d): d for d in range(10)}, "-": 10, "+": 11, "`": 12, "[": 13, ",": 14, "]": 15, "end": 16}
CHARACTER = {i: c for c, i in IDS.items()}


class Speller:
    """A decoder that spells answers drawn from `texts`: the true distribution of the next token."""

    def __init__(self, texts):
        self.texts = [[*(IDS[c] for c in text), IDS["end"]] for text in texts]

    def logits(self, said):
        going = [t for t in self.texts if t[: len(said)] == said]
        counts = np.zeros(len(IDS))
        for t in going:
            counts[t[len(said)]] += 1
        return np.log(np.maximum(counts, 1e-30) / max(len(going), 1)).astype(np.float32)

    def read(self):
        reader = NumberReader(IDS.__getitem__, digits=DIGITS)
        said = []
        while (token := reader.choose(self.logits(said))) != IDS["end"]:
            said.append(token)
        return "".join(CHARACTER[i] for i in said)


def odd(lowest):
    return st.lists(st.integers(lowest, 999), min_size=1, max_size=9).filter(lambda v: len(v) % 2)


@given(odd(0))
@settings(max_examples=200, deadline=None)
def test_a_number_is_the_median_of_what_is_thought(values):
    assert Speller([f"`{v:03d}`" for v in values]).read() == f"`{int(np.median(values)):03d}`"


@given(odd(-999), st.integers(-999, 999))
@settings(max_examples=300, deadline=None)
def test_so_is_each_component_of_a_vector(values, second):
    answer = Speller([f"`[{v:+04d},{second:+04d}]`" for v in values]).read()
    assert [int(n) for n in answer.strip("`[]").split(",")] == [np.median(values), second]


def test_the_likeliest_digits_would_spell_another_number():
    assert Speller([f"`{v}`" for v in (100, 101, 102, 400, 500, 600, 700)]).read() == "`400`"  # greedy: 10x


@pytest.mark.parametrize(
    "texts",
    [
        ["`[5,7]`", "`[5,7]`", "`[6,1]`", "`[7,1]`", "`[8,1]`"],  # a coordinate
        ["5-7", "5-7", "6-1", "7-1", "8-1"],  # no backticks
    ],
)
def test_what_is_no_number_is_the_likeliest(texts):
    assert Speller(texts).read() == texts[0]


def test_a_number_without_digits_is_refused():
    with pytest.raises(ValueError, match="one digit"):
        NumberReader(IDS.__getitem__, digits=0)


@pytest.mark.parametrize(
    ("published", "wide"),
    [
        ("`980`", "`00980`"),
        ("The camera moved `7` mm.", "The camera moved `00007` mm."),
        ("It is `[120, -35, 0]`.", "It is `[+00120, -00035, +00000]`."),
        ("`left`", "`left`"),
        ("`[ 512 , 7 ]`", "`[ 512 , 7 ]`"),
        ("`0`", "`00000`"),
    ],
)
def test_numbers_are_widened_and_narrowed_again(published, wide):
    assert widened(published, 5) == wide
    assert narrowed(wide) == published


def test_a_number_too_long_is_the_largest():
    assert widened("`123456`", 5) == "`99999`"
