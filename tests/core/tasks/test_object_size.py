"""Length, width and height of an upright box."""

from __future__ import annotations

import itertools

import numpy as np

from spatial_mllm_core.tasks import object_size


def test_length_is_the_longer_horizontal_side_whatever_the_order():
    for sides in itertools.permutations((0.4, 1.2)):
        truths = object_size.size_truths(np.array([*sides, 2.0]))
        assert {name.split("_")[2]: truth.values for name, truth in truths.items()} == {
            "height": (2.0,),
            "length": (1.2,),
            "width": (0.4,),
        }


def test_a_square_thing_is_as_wide_as_long():
    truths = object_size.size_truths(np.array([0.5, 0.5, 0.1]))
    assert truths[object_size.OBJECT_LENGTH.name] == truths[object_size.OBJECT_WIDTH.name]
