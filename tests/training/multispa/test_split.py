"""A place is in one split, simulated scenes go by their seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from spatial_mllm_training.multispa.split import split_of
from spatial_mllm_training.sources import Scene, SceneRef


def _never(path: Path) -> Scene:
    raise AssertionError


def _ref(name: str, seed: int | None = None, place: str = "") -> SceneRef:
    return SceneRef(name, "scannet", _never, (Path("x"),), seed, place)


def test_simulated_scenes_go_by_seed() -> None:
    seeds = {0: "train", 99_999: "train", 100_000: "validation", 100_099: "validation", 100_100: "benchmark"}
    assert {seed: split_of(_ref("scene", seed)) for seed in seeds} == seeds


def test_scans_of_one_place_are_never_torn_apart() -> None:
    for place in range(200):
        splits = {
            split_of(_ref(f"scene{place:04d}_{scan:02d}", place=f"scene{place:04d}")) for scan in range(4)
        }
        assert len(splits) == 1


def test_a_tenth_is_held_out_and_stays_so() -> None:
    counts = Counter(split_of(_ref(f"room-{i}")) for i in range(3000))
    assert 220 < counts["benchmark"] < 380 and counts["validation"] == 0
    assert [i for i in range(40) if split_of(_ref(f"room-{i}")) == "benchmark"] == HELD_OUT
    assert split_of(_ref("room-0")) == split_of(_ref("other", place="room-0"))


HELD_OUT = [11, 14, 20, 21, 25, 37]
"""Of room-0 to room-39: a release that changes these would test on what an older one trained on."""
