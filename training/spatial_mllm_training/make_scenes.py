"""Writes simulated scenes, one file a seed; `python -m spatial_mllm_training.make_scenes --help`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from spatial_mllm_core.errors import SpatialError, one_line
from spatial_mllm_training.arguments import positive_number
from spatial_mllm_training.scenes.cameras import CAMERA_SETS, DOMAINS, hfov_deg_of, hfov_intervals_deg
from spatial_mllm_training.scenes.generate import make_scene
from spatial_mllm_training.scenes.record import SceneRecord
from spatial_mllm_training.scenes.render import choose_gl
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED, scene_path
from spatial_mllm_training.scenes.views import NoViewError

_NO_INTERRUPT = (signal.SIGINT, signal.SIG_IGN)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.make_scenes",
        description="Make simulated RGB-D scenes with exact cameras and moving bodies. Whole scenes that are "
        "already there are kept. Seeds 0..99999 are for training, 100000 and up for validation and tests.",
        epilog="example: python -m spatial_mllm_training.make_scenes --out data/scenes --seeds 0:1500 --workers 2",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for scene_XXXXXXXX.npz")
    parser.add_argument(
        "--seeds", type=_seeds, required=True, help="FIRST:LAST (last not included), or one seed"
    )
    parser.add_argument("--workers", type=positive_number, default=1, help="processes (default 1)")
    parser.add_argument("--size", type=_size, default=(256, 192), help="WIDTHxHEIGHT (default 256x192)")
    parser.add_argument("--steps", type=positive_number, default=4, help="time steps a scene (default 4)")
    parser.add_argument("--views", type=positive_number, default=4, help="cameras a scene (default 4)")
    parser.add_argument(
        "--domain",
        choices=sorted(DOMAINS),
        default="broad",
        help="broad: rooms and tables, all cameras, near and wide views; "
        "workspace: tables from a robot's usual distance, near views; "
        "mat: tables and floors with squares of 0.2 m, for experiments with micro models",
    )
    parser.add_argument(
        "--cameras",
        choices=CAMERA_SETS,
        default="training",
        help="held-out: only fields of view that no other scene has, for tests (default training)",
    )
    parser.add_argument(
        "--supersample", type=positive_number, default=2, help="draw colour finer and average (default 2)"
    )
    parser.add_argument("--overwrite", action="store_true", help="make scenes anew that are already there")
    arguments = parser.parse_args(argv)
    if arguments.cameras == "held-out" and arguments.seeds[0] < FIRST_TEST_SEED:
        parser.error(f"held-out cameras are for test seeds, from {FIRST_TEST_SEED} on")
    return arguments


def _seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    try:
        seeds = range(int(first), int(last)) if colon else range(int(first), int(first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected FIRST:LAST, found '{text}'") from None
    if not len(seeds) or seeds[0] < 0 or seeds[-1] > 99_999_999:
        raise argparse.ArgumentTypeError(f"no seeds between 0 and 99999999 in '{text}'")
    return seeds


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT between 16 and 4096, found '{text}'")
    return int(width), int(height)


def write_scene(
    folder: Path,
    seed: int,
    size: tuple[int, int],
    steps: int,
    views: int,
    supersample: int,
    overwrite: bool = False,
    domain: str = "broad",
    cameras: str = "training",
) -> str:
    """Make and save one scene; return "made", "kept" or the reason why there is none."""
    path = scene_path(folder, seed)
    if path.exists() and not overwrite:
        try:
            record = SceneRecord.load(path)
            hfov_deg = hfov_deg_of(record.k, size[0])
            intervals = hfov_intervals_deg(DOMAINS[domain], cameras)
            if record.rgb.shape[:4] == (steps, views, size[1], size[0]) and any(
                low <= hfov_deg <= high for low, high in intervals
            ):
                return "kept"
        except SpatialError:
            pass  # half a file: made anew below
    try:
        make_scene(
            seed,
            width=size[0],
            height=size[1],
            steps=steps,
            views=views,
            supersample=supersample,
            domain=domain,
            camera_set=cameras,
        ).save(path)
    except NoViewError as error:
        return one_line(str(error))
    except Exception as error:  # one scene must never stop the others
        return one_line(f"seed {seed}: {type(error).__name__}: {error}")
    return "made"


def run(arguments: argparse.Namespace) -> int:
    """Make all scenes; return the exit status (1 when a scene failed)."""
    choose_gl()
    folder: Path = arguments.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"cannot write to {folder}: {error.strerror}", file=sys.stderr)
        return 2
    made, failures, start = 0, [], time.monotonic()
    rest = (
        arguments.size,
        arguments.steps,
        arguments.views,
        arguments.supersample,
        arguments.overwrite,
        arguments.domain,
        arguments.cameras,
    )
    bar = tqdm(total=len(arguments.seeds), unit="scene", smoothing=0.05)
    # Fresh processes: an OpenGL context does not survive a fork. Ctrl-C is this process's alone.
    pool = ProcessPoolExecutor(arguments.workers, get_context("spawn"), signal.signal, _NO_INTERRUPT)
    try:
        jobs = {pool.submit(write_scene, folder, seed, *rest): seed for seed in arguments.seeds}
        for job in as_completed(jobs):
            try:
                outcome = job.result()
            except BrokenProcessPool:
                outcome = f"seed {jobs[job]}: a worker process died"
            made += outcome == "made"
            if outcome not in ("made", "kept"):
                failures.append(outcome)
                bar.write(outcome)
            bar.update()
    finally:  # after Ctrl-C the scenes in hand are finished, the others are left
        pool.shutdown(cancel_futures=True)
        bar.close()
    seconds = time.monotonic() - start
    frames = made * arguments.steps * arguments.views
    print(
        f"{made} scenes made, {len(arguments.seeds) - made - len(failures)} kept, {len(failures)} failed; "
        f"{frames} frames in {seconds:.1f} s: {frames / max(seconds, 1e-9):.1f} frames/s"
    )
    return 1 if failures else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    try:
        return run(parse_arguments(argv))
    except SpatialError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
