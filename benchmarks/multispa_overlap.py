"""Visible points and overlaps of all image pairs: the data engine beside the published way, in one run.

    python benchmarks/multispa_overlap.py
    python benchmarks/multispa_overlap.py --frames 40 --points 20000 --table 20 40 --repeats 1   a look

The published way tests every point in every image, keeps a numpy mask per image, counts `and` and
`or` of every pair of masks and bins the pairs with pandas. Both ways get the same room of boxes,
ray-cast depth, poses and points, and the same rule of visibility; their overlaps and bins are
compared. Each measurement runs in a fresh process on one thread, and the two ways take turns; times
are CPU times, which other programs disturb less. Needs pandas for the published way. Exit status: 0 measured, 1 not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from processes import BenchmarkError, run_script
from samples import summary

ROOM_M = np.array([6.0, 5.0, 2.6])
LOW_PERCENT, HIGH_PERCENT, BIN_PERCENT = 6.0, 35.0, 1.0
WANTED = 1000  # pairs
GOAL_RATIO, GOAL_MIB = 20.0, 2048.0
LIMIT_S = 1800
WAYS = ("ours", "published")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=300, help="images of the comparison (300)")
    parser.add_argument("--points", type=int, default=200_000, help="points of the scene (200000)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(320, 240), metavar=("W", "H"), help="of a depth image"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of the comparison (5)")
    parser.add_argument(
        "--table",
        type=int,
        nargs="*",
        default=[100, 200, 400, 800],
        metavar="N",
        help="frames of the growth table",
    )
    parser.add_argument(
        "--published-up-to", type=int, default=400, metavar="N",
        help="longest line of the table that the published way runs, too (400)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here, too")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure_here(options.child, options.folder, options.frames)))
        return 0
    if min(options.frames, options.points, options.repeats, *options.size, *options.table) < 1:
        parser.error("every number must be at least 1")
    try:
        results = measure(options)
    except BenchmarkError as fault:
        print(f"bench: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    _print(results, options)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The comparison and the table.

    Raises:
        BenchmarkError: a part failed, or the two ways disagree.
    """
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    with tempfile.TemporaryDirectory() as folder:
        _tell("ray-casting the room")
        write_room(Path(folder), max([options.frames, *options.table]), options.points, *options.size)
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for repeat in range(options.repeats):
            _tell(f"{options.frames} frames, repeat {repeat + 1} of {options.repeats}")
            for way in WAYS:
                runs[way].append(_measured(way, folder, options.frames))
            agreement = _compare(Path(folder))
        table = []
        for frames in options.table:
            _tell(f"table, {frames} frames")
            line = {"frames": frames, "ours": _measured("ours", folder, frames)}
            if frames <= options.published_up_to:
                line["published"] = _measured("published", folder, frames)
                _compare(Path(folder))
            table.append(line)
    ratios = [p["total_s"] / o["total_s"] for o, p in zip(*(runs[way] for way in WAYS), strict=True)]
    return {
        "frames": options.frames, "points": options.points, "size": list(options.size), "agreement": agreement,
        "runs": runs, "ratio": summary(ratios), "table": table, "load": os.getloadavg()[0],
    }  # fmt: skip


def _measured(way: str, folder: str, frames: int) -> dict[str, Any]:
    return run_script(
        Path(__file__).name, "--child", way, "--folder", folder, "--frames", frames, limit_s=LIMIT_S
    )


def _tell(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def _compare(folder: Path) -> dict[str, Any]:
    ours, published = (dict(np.load(folder / f"{way}.npz")) for way in WAYS)
    worst = float(np.abs(ours["overlaps"] - published["overlaps"]).max(initial=0.0))
    if worst > 1e-4 or not np.array_equal(ours["bins"], published["bins"]):
        raise BenchmarkError(f"the two ways disagree: overlaps differ by up to {worst:.2g} per cent points")
    return {"largest_difference_percent": worst, "pairs_in_range": int(ours["bins"].sum())}


# -- one measurement, in a process of its own -------------------------------------------------------


def _measure_here(way: str, folder: Path, frames: int) -> dict[str, Any]:
    """CPU times of one way, s; writes the overlaps and the number of pairs per bin into the folder."""
    everything = np.load(folder / "room.npz")
    places = np.linspace(0, len(everything["world_from_camera"]) - 1, frames).astype(int)
    depths = np.stack([np.load(_depth_file(folder, number)) for number in places])
    poses, k, points = everything["world_from_camera"][places], everything["k"], everything["points_m"]
    times: dict[str, float] = {}
    find = _ours if way == "ours" else _published
    overlaps, bins = find(points, depths, poses, k, times)
    np.savez(folder / f"{way}.npz", overlaps=overlaps, bins=bins)
    peak_mib = _peak_mib()
    return {**times, "total_s": sum(times.values()), "peak_mib": peak_mib}


def _peak_mib() -> float:
    """Largest resident memory of this process since it started its program (getrusage counts its parent's)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    began_s = time.process_time()
    yield
    times[name] = time.process_time() - began_s


def _ours(points, depths, poses, k, times):  # type: ignore[no-untyped-def]
    from spatial_mllm_core.camera import CameraModel
    from spatial_mllm_training.multispa.config import VisibilityConfig
    from spatial_mllm_training.multispa.pair_sampling import sample_balanced
    from spatial_mllm_training.multispa.visibility import VisiblePoints
    from spatial_mllm_training.sources.base import SceneFrame

    camera = CameraModel.from_k(k, depths.shape[2], depths.shape[1])
    frames = [SceneFrame(str(i), camera, pose) for i, pose in enumerate(poses)]
    with _timed(times, "visible_s"):
        views = ((i, frame, depth_m) for i, (frame, depth_m) in enumerate(zip(frames, depths, strict=True)))
        visible = VisiblePoints(points, views, VisibilityConfig())
    with _timed(times, "overlap_s"):
        matrix = visible.overlap_percent()
    with _timed(times, "sample_s"):
        overlaps = matrix[np.triu_indices(len(frames), k=1)]
        sample_balanced(overlaps, WANTED, LOW_PERCENT, HIGH_PERCENT, BIN_PERCENT, np.random.default_rng(0))
    edges = np.arange(LOW_PERCENT, HIGH_PERCENT + BIN_PERCENT, BIN_PERCENT)
    bins = np.bincount(np.searchsorted(edges, overlaps), minlength=len(edges) + 1)[1:-1]
    bins[0] += np.count_nonzero(overlaps == LOW_PERCENT)
    return overlaps, bins


def _published(points, depths, poses, k, times):  # type: ignore[no-untyped-def]
    """MultiSPA section 3.2.1 and Listing 1, step by step.

    Only the rule of visibility is ours: two-sided, in the image by the nearest pixel.
    """
    import pandas as pd

    height, width = depths.shape[1:]
    masks = []
    with _timed(times, "visible_s"):
        for depth_m, pose in zip(depths, poses, strict=True):
            homogeneous = np.hstack([points, np.ones((len(points), 1))])
            in_camera = (np.linalg.inv(pose) @ homogeneous.T).T
            z = in_camera[:, 2]
            with np.errstate(divide="ignore", invalid="ignore"):
                pixels = (k @ in_camera[:, :3].T).T[:, :2] / z[:, None]
                u, v = np.floor(pixels + 0.5).T
            inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
            column = np.clip(np.nan_to_num(u), 0, width - 1).astype(int)
            row = np.clip(np.nan_to_num(v), 0, height - 1).astype(int)
            measured = depth_m[row, column]
            masks.append(
                inside & (measured > 0) & (np.abs(z - measured) <= np.maximum(0.05, 0.03 * measured))
            )
    pairs = [(i, j) for i in range(len(masks)) for j in range(i + 1, len(masks))]
    with _timed(times, "overlap_s"):
        overlaps = np.zeros(len(pairs))
        for number, (i, j) in enumerate(pairs):
            union = np.sum(np.logical_or(masks[i], masks[j]))
            if union:
                overlaps[number] = np.sum(np.logical_and(masks[i], masks[j])) / union * 100
    with _timed(times, "sample_s"):
        table = pd.DataFrame(pairs, columns=["first", "second"])
        table["overlap"] = overlaps
        rest = table[table["overlap"] != 0].copy()
        edges = np.arange(LOW_PERCENT, HIGH_PERCENT + BIN_PERCENT, BIN_PERCENT)
        rest["group"] = pd.cut(rest["overlap"], bins=edges, include_lowest=True)
        groups = sorted(
            rest.dropna(subset=["group"]).groupby("group", observed=True), key=lambda g: len(g[1])
        )
        left_over, chosen = 0, []
        for _, group in groups:
            quota = WANTED // len(groups) + left_over
            take = min(quota, len(group))
            chosen.append(group.sample(n=take))
            left_over = quota - take
        pd.concat(chosen) if chosen else None
    bins = rest["group"].value_counts(sort=False).to_numpy()
    return overlaps, bins


# -- the room ---------------------------------------------------------------------------------------


def write_room(folder: Path, frames: int, points: int, width: int, height: int) -> None:
    """A furnished room and a walk through it: room.npz (points_m, world_from_camera, k), depths beside."""
    rng = np.random.default_rng(3)
    boxes = [(np.zeros(3), ROOM_M)]
    for _ in range(14):
        size = rng.uniform([0.4, 0.4, 0.3], [1.4, 1.0, 1.5])
        corner = np.append(rng.uniform([0, 0], ROOM_M[:2] - size[:2]), 0.0)
        boxes.append((corner, corner + size))
    k = np.array([[0.85 * width, 0, (width - 1) / 2], [0, 0.85 * width, (height - 1) / 2], [0, 0, 1]])
    poses = np.stack([_pose(share) for share in np.linspace(0, 1, frames)])
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones(u.shape)])
    for number, pose in enumerate(poses):
        depth_m = _ray_cast(boxes, pose[:3, 3], np.tensordot(pose[:3, :3], rays, 1))
        np.save(_depth_file(folder, number), depth_m.astype(np.float32))
    np.savez(folder / "room.npz", points_m=_on_boxes(boxes, points, rng), world_from_camera=poses, k=k)


def _depth_file(folder: Path, number: int) -> Path:
    return folder / f"depth-{number}.npy"


def _pose(share: float) -> np.ndarray:
    """World from camera at a part of a walk of three rounds; the camera turns faster than it walks."""
    at = 2 * np.pi * 3 * share
    position = ROOM_M / 2 + [1.9 * np.cos(at), 1.5 * np.sin(at), 0.3 + 0.2 * np.sin(2.3 * at)]
    yaw, pitch = 2.7 * at, -0.25 + 0.2 * np.sin(1.7 * at)
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = position
    return pose


def _ray_cast(boxes: list[tuple[np.ndarray, np.ndarray]], start: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(H, W) depth along rays (3, H, W) of unit z; the first box is the room, seen from inside."""
    depth = np.full(rays.shape[1:], np.inf)
    inverse = 1.0 / np.where(rays == 0, 1e-12, rays)
    for number, (low, high) in enumerate(boxes):
        a, b = ((bound - start)[:, None, None] * inverse for bound in (low, high))
        enter, leave = np.minimum(a, b).max(axis=0), np.maximum(a, b).min(axis=0)
        hit = leave if number == 0 else np.where((enter > 0) & (enter < leave), enter, np.inf)
        np.minimum(depth, hit, out=depth)
    return depth


def _on_boxes(boxes: list[tuple[np.ndarray, np.ndarray]], count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) float32 points, evenly over the faces of all boxes."""
    faces = [(box, axis, side) for box in boxes for axis in range(3) for side in (0, 1)]
    areas = np.array([np.delete(high - low, axis).prod() for (low, high), axis, _ in faces])
    parts = []
    for (box, axis, side), number in zip(faces, rng.multinomial(count, areas / areas.sum()), strict=True):
        points = rng.uniform(*box, size=(number, 3))
        points[:, axis] = box[side][axis]
        parts.append(points)
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


# -- the table --------------------------------------------------------------------------------------


def _print(results: dict[str, Any], options: argparse.Namespace) -> None:
    runs, agreement = results["runs"], results["agreement"]
    width, height = results["size"]
    print(
        f"{results['frames']} frames of {width}x{height} px, {results['points']} points, CPU time on one thread, "
        f"medians of {options.repeats} (load {results['load']:.1f})"
    )
    medians = {}
    for way in WAYS:
        medians[way] = {key: summary(run[key] for run in runs[way])["median"] for key in runs[way][0]}
        print(_line(f"  {way}", medians[way]))
    ratio = results["ratio"]
    print(f"  ratio      {ratio['median']:.1f} ({ratio['min']:.1f} to {ratio['max']:.1f})")
    print(
        f"  same overlaps within {agreement['largest_difference_percent']:.1g} per cent points, "
        f"same bins; {agreement['pairs_in_range']} pairs from {LOW_PERCENT:g} to {HIGH_PERCENT:g} %\n"
    )
    print("growth, one run each")
    for line in results["table"]:
        for way in WAYS:
            if way in line:
                print(_line(f"  {line['frames']:4} frames, {way}", line[way]))
        if "published" in line:
            print(f"    ratio    {line['published']['total_s'] / line['ours']['total_s']:.1f}")
    print("goals")
    met = "met" if ratio["median"] >= GOAL_RATIO else "MISSED"
    print(f"  {met:6}  times faster than the published way: {ratio['median']:.1f}, at least {GOAL_RATIO:g}")
    peak = max(run["peak_mib"] for run in (*runs["ours"], *(line["ours"] for line in results["table"])))
    met = "met" if peak <= GOAL_MIB else "MISSED"
    print(f"  {met:6}  peak memory, the depth images included: {peak:.0f} MiB, at most {GOAL_MIB:g} MiB")


def _line(name: str, run: dict[str, float]) -> str:
    return (
        f"{name:<26} {run['total_s']:8.2f} s  (visible {run['visible_s']:.2f}, overlap {run['overlap_s']:.2f}, "
        f"sampling {run['sample_s']:.2f})  {run['peak_mib']:6.0f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
