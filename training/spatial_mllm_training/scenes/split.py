"""Which scene belongs to which split: by seed, so that no row of a held-out scene is ever trained on."""

from __future__ import annotations

from pathlib import Path

FIRST_HELD_OUT_SEED = 100_000
FIRST_TEST_SEED = 100_100
"""Seeds between the two are for validation; training never looks at the ones above."""


def scene_path(folder: Path, seed: int) -> Path:
    """Return where the scene of `seed` lies in `folder`."""
    return folder / f"scene_{seed:08d}.npz"


def seed_of(scene: Path) -> int:
    """Return the seed in the name that `scene_path` gave."""
    return int(scene.stem.split("_")[1])


def validation_files(folder: Path) -> list[Path]:
    """Scene files of the held-out seeds that training may look at, in order."""
    return [f for f in scene_files(folder, held_out=True) if seed_of(f) < FIRST_TEST_SEED]


def scene_files(folder: Path, *, held_out: bool) -> list[Path]:
    """Scene files of the training seeds or of the held-out seeds, in order."""
    files = sorted(folder.glob("scene_*.npz"))
    return [f for f in files if (seed_of(f) >= FIRST_HELD_OUT_SEED) == held_out]
