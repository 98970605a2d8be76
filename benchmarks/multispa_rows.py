"""MultiSPA rows per second and core: preparing scenes, drafting each subtask, writing rows with images.

    python benchmarks/multispa_rows.py                      renders eight scenes of 12 views and 4 steps
    python benchmarks/multispa_rows.py --scenes data/scenes  takes scenes that are there

Everything runs in this process on one thread; times are CPU times, medians over the repeats. A
subtask's drafts are what its share of one scene costs once the scene is prepared; "with rows" adds
words, JPEG images and dots. Exit status: 0 measured, 1 not.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and OpenCV start their threads

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training import make_scenes
from spatial_mllm_training.multispa import generators
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft
from spatial_mllm_training.multispa.prepare import PreparedScene, prepare
from spatial_mllm_training.multispa.writing import SceneWriter
from spatial_mllm_training.sources import Scene, SceneProblem, SceneRef
from spatial_mllm_training.sources.simulated import find_scenes

Result = TypeVar("Result")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=Path, help="folder of scene_*.npz (default: rendered for the run)")
    parser.add_argument("--size", default="640x480", help="of rendered images (640x480)")
    parser.add_argument("--count", type=int, default=8, help="scenes (8)")
    parser.add_argument("--rows", type=int, default=60, help="rows of a subtask and scene (60)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as work:
            measure(options, Path(work))
    except (SpatialError, SceneProblem) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def measure(options: argparse.Namespace, work: Path) -> None:
    """Print the table."""
    folder = options.scenes or render(work / "scenes", options)
    refs = find_scenes(folder)[: options.count]
    config = MultispaConfig()
    prepare_s: list[float] = []
    draft_s: dict[str, list[float]] = {name: [] for name in tasks.names()}
    write_s: dict[str, list[float]] = {name: [] for name in tasks.names()}
    counts = dict.fromkeys(tasks.names(), 0)
    frames = 0
    for ref in tqdm(refs, unit="scene"):
        seconds, prepared = timed(lambda r=ref: fresh(r, config), options.repeats)
        scene = prepared.scene
        frames += len(scene.frames)
        prepare_s.append(seconds)
        prime(prepared)
        for name in tasks.names():
            seconds, drafts = timed(
                lambda n=name, p=prepared: generators.drafts(p, {n: options.rows}, 0).get(n, []),
                options.repeats,
            )
            counts[name] += len(drafts)
            draft_s[name].append(seconds)
            seconds, _ = timed(lambda d=drafts, s=scene: write(s, d, work / "images"), 1)
            write_s[name].append(seconds)
    print(
        f"\n{len(refs)} scenes, {frames} frames of {scene.frames[0].camera.width}x{scene.frames[0].camera.height}: "
        f"preparing takes {statistics.median(prepare_s):.2f} s a scene (median), "
        f"{1000 * sum(prepare_s) / frames:.1f} ms a frame\n"
    )
    print(f"{'subtask, one core':<46}{'rows':>6}{'drafts/s':>11}{'with rows/s':>13}")
    for name in tasks.names():
        n, drafting, writing = counts[name], sum(draft_s[name]), sum(write_s[name])
        if n:
            print(f"{name:<46}{n:>6}{n / drafting:>11.0f}{n / (drafting + writing):>13.0f}")
        else:
            print(f"{name:<46}{n:>6}{'none':>11}")
    total, spent = sum(counts.values()), sum(prepare_s) + sum(map(sum, draft_s.values()))
    print(f"{'all, scenes prepared once':<46}{total:>6}{total / spent:>11.0f}", end="")
    print(f"{total / (spent + sum(map(sum, write_s.values()))):>13.0f}")


def render(folder: Path, options: argparse.Namespace) -> Path:
    """Scenes of training seeds."""
    words = [
        "--out",
        folder,
        "--seeds",
        f"0:{options.count}",
        "--size",
        options.size,
        "--views",
        12,
        "--steps",
        4,
    ]
    if make_scenes.main([str(w) for w in words]):
        raise SceneProblem("seeds", str(folder), "scenes could not be rendered; the reason stands above")
    return folder


def fresh(ref: SceneRef, config: MultispaConfig) -> PreparedScene:
    """Open and prepare: a scene that was open before keeps its points."""
    return prepare(ref.open(*ref.arguments), config, np.random.default_rng(0))


def prime(prepared: PreparedScene) -> None:
    """Followed points and candidate pairs belong to the scene, not to a subtask."""
    _ = prepared.scene.tracks
    generators.drafts(prepared, dict.fromkeys(tasks.names(), 1), 0)


def write(scene: Scene, drafts: list[Draft], images: Path) -> None:
    writer = SceneWriter(scene, images, split="train", seed=0)
    for number, draft in enumerate(drafts):
        writer.row(draft, number)
    writer.finish()


def timed(work: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Median CPU seconds and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


if __name__ == "__main__":
    sys.exit(main())
