"""MultiSPA-Sim: the fixed, seeded benchmark over simulated scenes, and the numbers that define it.

Its scenes have test seeds and held-out cameras (fields of view that no training scene has). The
blind baseline beside it comes from training seeds and training cameras.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spatial_mllm_core import tasks
from spatial_mllm_training import make_scenes
from spatial_mllm_training.benchmark.blind import FILE_NAME, fit_blind
from spatial_mllm_training.benchmark.data import BenchmarkProblem, each_row
from spatial_mllm_training.multispa.config import MultispaConfig, ObjectMotionConfig, PairConfig
from spatial_mllm_training.multispa.run import Summary, Workers, make_dataset, refuse_finished
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED
from spatial_mllm_training.sources.simulated import find_scenes

ROWS_PER_SUBTASK = 300
"""As published; a binomial standard error of at most 2.9 points a subtask."""
MINI_ROWS_PER_SUBTASK = 20
SEED = 2505
"""Of every choice after rendering."""
DOMAIN = "broad"
"""Rooms and tables, near and wide views: the widest that the simulation has."""
CONFIG = MultispaConfig(
    pairs=PairConfig(
        # the published rows ask about movements of 1 mm and 0 degrees, where the word is a coin toss
        # and 20 % of the truth is less than the rounding of the answer
        min_shift_m=0.02,
        min_turn_deg=2.0,
    ),
    # 20 % of 2 cm is 4 mm: the least that a pixel of these images can tell at arm's length
    object_motion=ObjectMotionConfig(min_displacement_m=0.02),
)


@dataclass(frozen=True)
class Recipe:
    """One data set of simulated scenes.

    Attributes:
        split: "benchmark" or "train"; test seeds go with held-out cameras.
        rows: of every subtask.
        views, steps: cameras of a scene and moments that each of them sees.
        size: width and height of the images, px.
        domain: of `make_scenes`.
    """

    split: str
    seeds: range
    rows: int
    views: int
    steps: int
    size: tuple[int, int]
    domain: str = DOMAIN


FULL = Recipe(
    "benchmark",
    range(FIRST_TEST_SEED, FIRST_TEST_SEED + 150),  # two rows of a subtask and scene: hardly alike
    ROWS_PER_SUBTASK,
    views=6,  # 15 pairs of cameras at each moment, so that most bins of overlap are filled
    steps=4,
    size=(640, 480),  # what most robot cameras send
)
MINI = Recipe(
    "benchmark",
    range(FIRST_TEST_SEED, FIRST_TEST_SEED + 8),  # few scenes: their images are stored in the repository
    MINI_ROWS_PER_SUBTASK,
    views=6,
    steps=4,
    size=(256, 192),
)
FULL_TRAINING = Recipe(
    "train",
    range(100),
    ROWS_PER_SUBTASK,
    views=6,
    steps=4,
    size=(256, 192),  # coordinates are relative: words and truths do not depend on the size
)
MINI_TRAINING = Recipe("train", range(16), 100, views=6, steps=4, size=(256, 192))


def make_benchmark(out: Path, *, mini: bool = False, workers: int = 1, domain: str = DOMAIN) -> Summary:
    """Render, write the blind baseline and the rows of the benchmark into `out`.

    Another domain than the benchmark's own gives another benchmark, for models trained in that domain.

    Scenes (44 MB each at full size) and training rows stay in `<out>.work`, so that a run that was
    cut short goes on; nothing needs them afterwards.

    Raises:
        BenchmarkProblem: a scene could not be made; SpatialError: `out` holds a finished or another data set.
    """
    refuse_finished(out)  # before an hour of drawing
    recipes = (MINI, MINI_TRAINING) if mini else (FULL, FULL_TRAINING)
    benchmark, training = (replace(recipe, domain=domain) for recipe in recipes)
    work = out.with_name(f"{out.name}.work")
    if not (out / FILE_NAME).exists():  # first, since a finished benchmark is not opened again
        if not (work / "training" / "dataset.json").exists():
            make_rows(training, work / "training-scenes", work / "training", workers=workers)
        fit_blind(each_row(work / "training")).save(out / FILE_NAME)
    return make_rows(benchmark, work / "scenes", out, workers=workers)


def make_rows(recipe: Recipe, scenes: Path, out: Path, *, workers: int) -> Summary:
    """Render the scenes of a recipe that are not there yet and write its rows."""
    render(recipe, scenes, workers=workers)
    refs = [ref for ref in find_scenes(scenes) if ref.seed in recipe.seeds]
    return make_dataset(
        refs,
        out,
        dict.fromkeys(tasks.names(), recipe.rows),
        config=CONFIG,
        seed=SEED,
        split=recipe.split,
        workers=Workers(workers),
    )


def render(recipe: Recipe, scenes: Path, *, workers: int) -> None:
    """Make a recipe's scenes with the verb that users have.

    Raises:
        BenchmarkProblem: not all scenes could be made; the verb has said why.
    """
    if make_scenes.run(make_scenes.parse_arguments(scene_arguments(recipe, scenes, workers))):
        raise BenchmarkProblem(f"not all scenes could be made in '{scenes}'; the reasons stand above")


def scene_arguments(recipe: Recipe, scenes: Path, workers: int) -> list[str]:
    """What `make_scenes` is called with."""
    width, height = recipe.size
    return [
        *("--out", str(scenes)),
        *("--seeds", f"{recipe.seeds[0]}:{recipe.seeds[-1] + 1}"),
        *("--size", f"{width}x{height}"),
        *("--views", str(recipe.views)),
        *("--steps", str(recipe.steps)),
        *("--domain", recipe.domain),
        *("--cameras", "held-out" if recipe.split == "benchmark" else "training"),
        *("--workers", str(max(1, workers))),
    ]
