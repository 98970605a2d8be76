"""Timed transforms against scipy, and trees that cannot answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from spatial_mllm_training.sources.tf_tree import MissingTransformError, TransformTree

STEP_NS = 100_000_000
UNIT = (0.0, 0.0, 0.0, 1.0)


def random_tree(max_gap_s: float = 1.0):
    """map -> odom -> base (both moving, out of step), base -> camera (static), map -> beacon (static)."""
    rng = np.random.default_rng(1)
    tree, samples = TransformTree(max_gap_s), {}
    for parent, child, offset_ns in (("map", "odom", 37_000_000), ("odom", "base", 0)):
        stamps = offset_ns + STEP_NS * np.arange(20)
        turns = Rotation.from_rotvec(np.cumsum(rng.normal(scale=0.2, size=(20, 3)), axis=0))
        shifts = np.cumsum(rng.normal(scale=0.1, size=(20, 3)), axis=0)
        samples[child] = (stamps, turns, shifts)
        for i in rng.permutation(20):  # the order of recording does not matter
            sign = rng.choice((-1, 1))  # q and -q are one rotation
            tree.add(parent, child, stamps[i], shifts[i], sign * turns[i].as_quat(), is_static=False)
    for parent, child in (("base", "camera"), ("map", "beacon")):
        turn, shift = Rotation.random(random_state=2), rng.normal(size=3)
        samples[child] = (None, turn, shift)
        tree.add(parent, child, 5, shift, turn.as_quat(), is_static=True)
    return tree, samples


def expected(samples, child: str, stamp_ns: int) -> np.ndarray:
    stamps, turns, shifts = samples[child]
    matrix = np.eye(4)
    if stamps is None:
        matrix[:3, :3], matrix[:3, 3] = turns.as_matrix(), shifts
    else:
        matrix[:3, :3] = Slerp(stamps * 1e-9, turns)(stamp_ns * 1e-9).as_matrix()
        matrix[:3, 3] = [np.interp(stamp_ns, stamps, shifts[:, axis]) for axis in range(3)]
    return matrix


@pytest.mark.parametrize("stamp_ns", [37_000_000, 100_000_000, 333_333_333, 1_899_999_999, 1_900_000_000])
def test_chain_between_samples(stamp_ns):
    tree, samples = random_tree()
    chain = expected(samples, "odom", stamp_ns) @ expected(samples, "base", stamp_ns)
    chain = chain @ expected(samples, "camera", stamp_ns)
    np.testing.assert_allclose(tree.lookup("map", "camera", stamp_ns), chain, atol=1e-7)
    np.testing.assert_allclose(tree.lookup("/camera", "/map", stamp_ns), np.linalg.inv(chain), atol=1e-7)
    across = np.linalg.inv(expected(samples, "beacon", stamp_ns)) @ chain
    np.testing.assert_allclose(tree.lookup("beacon", "camera", stamp_ns), across, atol=1e-7)
    np.testing.assert_array_equal(tree.lookup("base", "base", stamp_ns), np.eye(4))


def test_the_chain_of_a_frame():
    tree, _ = random_tree()
    assert tree.chain("camera") == ["camera", "base", "odom", "map"]
    assert [tree.is_static(name) for name in ("camera", "base", "odom", "beacon")] == [
        True,
        False,
        False,
        True,
    ]
    assert tree.chain("unheard_of") == ["unheard_of"]


@pytest.mark.parametrize("stamp_ns", [36_999_999, 1_900_000_001, 10**18])
def test_nothing_is_made_up_outside_of_the_recording(stamp_ns):
    tree, _ = random_tree()
    with pytest.raises(MissingTransformError, match="only from"):
        tree.lookup("map", "camera", stamp_ns)
    assert tree.lookup("base", "camera", stamp_ns).shape == (4, 4)  # static


def test_nothing_is_made_up_across_a_gap():
    tree, _ = random_tree(max_gap_s=0.05)
    with pytest.raises(MissingTransformError, match=r"0\.1 s apart"):
        tree.lookup("odom", "base", 150_000_000)
    assert tree.lookup("odom", "base", 200_000_000).shape == (4, 4)


@pytest.mark.parametrize("bad", [(np.nan, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 1.5), (np.inf, 0, 0, 1)])
def test_a_sample_that_is_no_rotation_spoils_its_time_only(bad):
    tree = TransformTree()
    for i in range(5):
        tree.add("map", "camera", i * STEP_NS, (i, 0, 0), bad if i == 2 else UNIT, is_static=False)
    for stamp_ns in (2 * STEP_NS, STEP_NS + 1, 3 * STEP_NS - 1):
        with pytest.raises(MissingTransformError, match=r"'camera' in 'map' holds NaN"):
            tree.lookup("map", "camera", stamp_ns)
    for stamp_ns, x in ((STEP_NS, 1), (STEP_NS // 2, 0.5), (3 * STEP_NS, 3)):
        assert tree.lookup("map", "camera", stamp_ns)[0, 3] == pytest.approx(x)


def test_nan_translation_is_refused():
    tree = TransformTree()
    tree.add("map", "camera", 0, (0, np.nan, 0), UNIT, is_static=True)
    with pytest.raises(MissingTransformError, match="NaN"):
        tree.lookup("map", "camera", 0)


def test_of_equal_stamps_the_latest_counts_and_moving_beats_static():
    tree = TransformTree()
    tree.add("map", "camera", 0, (9, 0, 0), UNIT, is_static=True)
    for x in (1, 2):
        tree.add("map", "camera", 50, (x, 0, 0), UNIT, is_static=False)
    tree.add("map", "camera", 50, (8, 0, 0), UNIT, is_static=True)
    assert tree.lookup("map", "camera", 50)[0, 3] == 2
    tree.add("map", "camera", 50, (3, 0, 0), UNIT, is_static=False)
    assert tree.lookup("map", "camera", 50)[0, 3] == 3


def test_trees_that_are_no_trees():
    tree = TransformTree()
    tree.add("a", "b", 0, (0, 0, 0), UNIT, is_static=True)
    tree.add("x", "y", 0, (0, 0, 0), UNIT, is_static=True)
    with pytest.raises(MissingTransformError, match=r"no transforms connect 'y'.*with 'b'"):
        tree.lookup("b", "y", 0)
    tree.add("b", "a", 0, (0, 0, 0), UNIT, is_static=True)
    with pytest.raises(MissingTransformError, match="loop"):
        tree.lookup("a", "b", 0)
    tree.add("z", "y", 0, (0, 0, 0), UNIT, is_static=True)
    with pytest.raises(MissingTransformError, match="several parents: x, z"):
        tree.chain("y")
    tree.forget("y")
    assert tree.chain("y") == ["y"]
