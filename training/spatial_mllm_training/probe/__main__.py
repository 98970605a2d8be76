"""Probing and lifting; `python -m spatial_mllm_training.probe --help`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.benchmark.data import BenchmarkProblem
from spatial_mllm_training.multispa.split import SPLITS
from spatial_mllm_training.probe.arguments import parse_arguments
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.sources import SceneProblem, SceneRef, posed_images


def run_depth(arguments: argparse.Namespace) -> int:
    """Train and judge a probe; write probe.json, images.jsonl, probe.pt and the features."""
    import torch

    from spatial_mllm_training.probe import cache, fit, picking, quality, tapped

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    _positive(arguments, "frames", "hidden", "epochs", "batch", "max_depth")
    refs = _refs(arguments)
    if arguments.run:
        model = tapped.open_run(arguments.run, checkpoint=arguments.checkpoint, device=device)
    else:
        model = tapped.open_published(
            arguments.model,
            additions=arguments.additions,
            adapter=arguments.adapter,
            size=_size(arguments.size),
            device=device,
        )
    splits = ("train", arguments.held_out)
    picked, skipped = picking.pick(refs, per_scene=arguments.frames, splits=splits)
    for split in splits:
        if not any(place.split == split for _, places in picked for place in places):
            raise ProbeProblem(
                f"the scenes give no image of the split '{split}'; the probe is trained on places of 'train' "
                f"and judged on places of '{arguments.held_out}'"
            )
    out: Path = arguments.out
    (out / "features").mkdir(parents=True, exist_ok=True)
    config = fit.ProbeConfig(
        hidden=arguments.hidden,
        epochs=arguments.epochs,
        batch=arguments.batch,
        max_depth_m=arguments.max_depth,
        seed=arguments.seed,
    )
    features, problems = cache.fill(out / "features", model, picked, max_depth_m=config.max_depth_m)
    _say([*skipped, *problems])
    training, held_out = (features.of_split(split) for split in splits)
    if not len(held_out):
        raise ProbeProblem(f"no image of the split '{arguments.held_out}' is usable")
    probe = fit.fit(features, training, config, out / "probe.pt", device=device)
    figures = fit.judge(probe, features, training, held_out, device=device)
    quality.write_lifting(out / "images.jsonl", figures.places, figures.images, figures.matched_images)
    errors = {
        name: asdict(getattr(figures, name)) for name in ("probe", "matched", "blind", "blind_by_place")
    }
    _write_json(
        out / "probe.json",
        {
            "model": model.name,
            "rmse_m": figures.probe.rmse_m,
            "training_images": len(training),
            "held_out_images": len(held_out),
            "held_out": arguments.held_out,
            "config": asdict(config),
            **errors,
        },
    )
    print(f"{model.name}: {len(training)} training images, {len(held_out)} held-out images")
    titles = ("depth probe", "after scale, shift", "blind: mean depth", "blind: mean per place")
    for title, error in zip(titles, errors.values(), strict=True):
        print(
            f"{title:<22} RMSE {error['rmse_m']:.3f} m   AbsRel {error['abs_rel']:.3f}   "
            f"within 1.25: {error['delta1']:.3f}   1.25²: {error['delta2']:.3f}   1.25³: {error['delta3']:.3f}"
        )
    return 0


def run_lift(arguments: argparse.Namespace) -> int:
    """Lift images with the model's own head; write clouds, sheets, recordings and figures."""
    from spatial_mllm_training.probe import lifted, picking, quality
    from spatial_mllm_training.probe.errors import mean_error

    _positive(arguments, "frames", "points")
    if arguments.rrd:
        from spatial_mllm_training.probe.recording import import_rerun

        import_rerun()  # before anything is computed for nothing
    refs = _refs(arguments)
    model = _lifter(arguments)
    picked, problems = picking.pick(
        refs,
        per_scene=arguments.frames,
        splits=SPLITS if arguments.split == "all" else (arguments.split,),
        wanted=_frames_of(arguments.data) if arguments.data else None,
    )
    _say(problems)
    out: Path = arguments.out
    problems = []
    found = (image for _, image in posed_images.read(picked, problems) if image is not None)
    places, errors, matched = [], [], []
    for scene, group in groupby(lifted.lift(model, found), key=lambda one: one.place.scene):
        kept = []
        for one in group:
            if not arguments.figures_only:
                kept.append(one)
            if one.error is not None and one.matched is not None:
                places.append(one.place)
                errors.append(one.error)
                matched.append(one.matched)
        if kept:
            _write_scene(out / _safe(scene), kept, model.name, points=arguments.points, rrd=arguments.rrd)
    _say(problems)
    mean, best = mean_error(errors), mean_error(matched)
    if mean is None or best is None:
        raise ProbeProblem("no image with a true depth could be lifted")
    quality.write_lifting(out / "images.jsonl", places, errors, matched)
    _write_json(
        out / "lift.json",
        {
            "model": model.name,
            "rmse_m": mean.rmse_m,
            "images": len(errors),
            "lifted": asdict(mean),
            "matched": asdict(best),
        },
    )
    print(
        f"{model.name}: {len(errors)} images, RMSE {mean.rmse_m:.3f} m, AbsRel {mean.abs_rel:.3f}, "
        f"within 1.25: {mean.delta1:.3f}; RMSE {best.rmse_m:.3f} m after scale and shift"
    )
    return 0


def run_quality(arguments: argparse.Namespace) -> int:
    """Print accuracy by quarter of lifting quality and the slope."""
    from spatial_mllm_training.benchmark.data import load_rows, read_predictions
    from spatial_mllm_training.probe import quality

    lifting = quality.read_lifting(arguments.lifting)
    rows = load_rows(arguments.data)
    if arguments.predictions:
        predictions = read_predictions(arguments.predictions, rows)
    else:
        from spatial_mllm_training.benchmark.serving import ask_bundle

        predictions = ask_bundle(arguments.bundle, rows, arguments.data / "images")
    result = quality.relate(rows, predictions, lifting, measure=arguments.measure)
    if arguments.out:
        _write_json(arguments.out, result.to_json())
    print(quality.table(result))
    return 0


def run_trend(arguments: argparse.Namespace) -> int:
    """Print the rank correlation of lifting RMSE and accuracy."""
    from spatial_mllm_training.probe import quality, relation

    pairs = [quality.checkpoint_figures(*files) for files in arguments.checkpoint]
    if len(pairs) < 3:
        raise ProbeProblem(f"a trend needs at least three checkpoints, found {len(pairs)}")
    for (rmse_m, percent), (lifting, _) in zip(pairs, arguments.checkpoint, strict=True):
        print(f"{lifting.parent!s:<40} lifting RMSE {rmse_m:.3f} m   accuracy {percent:.1f} %")
    trend = relation.rank_trend(*zip(*pairs, strict=True))
    print(
        f"Spearman of lifting RMSE and accuracy: {trend.rho:+.2f} over {trend.n} checkpoints, "
        f"p = {trend.p_value:.3f}; -1 means that better lifting always comes with better answers"
    )
    return 0


def run_matches(arguments: argparse.Namespace) -> int:
    """Print how often what two images are told of each other is right."""
    from spatial_mllm_core.model import SpatialModel
    from spatial_mllm_training.probe import two_views
    from spatial_mllm_training.scenes.split import FIRST_TEST_SEED, scene_files, seed_of

    _positive(arguments, "pairs")
    scenes = [
        f
        for f in scene_files(arguments.scenes, held_out=True)
        if (seed_of(f) >= FIRST_TEST_SEED) == arguments.test
    ]
    if not scenes:
        kind = "test" if arguments.test else "validation"
        raise ProbeProblem(f"'{arguments.scenes}' holds no {kind} scene of make_scenes")
    model = SpatialModel.load(arguments.bundle)
    score = two_views.judge(model, scenes, pairs=arguments.pairs, far=arguments.far)
    if arguments.out:
        keys = ("right_percent", "standard_error", "one_answer_percent")
        figures = {name: dict(zip(keys, values, strict=True)) for name, *values in score.rows()}
        _write_json(arguments.out, {"model": model.name, "pairs": score.pairs, "figures": figures})
    print(two_views.table(score))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse_arguments(argv)
    verbs = {
        "depth": run_depth,
        "lift": run_lift,
        "quality": run_quality,
        "trend": run_trend,
        "matches": run_matches,
    }
    try:
        return verbs[arguments.verb](arguments)
    except (ProbeProblem, BenchmarkProblem, SceneProblem, SpatialError) as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2


def _write_scene(folder: Path, lifted: list[Any], model: str, *, points: int, rrd: bool) -> None:
    from spatial_mllm_training.probe.point_cloud import clouds, side_by_side, write_ply
    from spatial_mllm_training.probe.sheet import png, sheet

    scene = lifted[0].place.scene
    predicted, true = clouds(lifted, most=points)
    both, shift_m = side_by_side(predicted, true)
    write_ply(folder / "predicted.ply", predicted, f"{scene} as {model} sees it, metres, world axes")
    write_ply(folder / "true.ply", true, f"{scene} as measured, metres, world axes")
    write_ply(
        folder / "side_by_side.ply", both, f"{scene}: predicted, and true moved by {shift_m:.3f} m along x"
    )
    write_atomically(folder / "sheet.png", png(sheet(lifted, f"{scene}   {model}")), replace=True)
    if rrd:
        from spatial_mllm_training.probe.recording import write_recording

        write_recording(folder / "recording.rrd", lifted, f"{scene} {model}")
    print(folder)


def _lifter(arguments: argparse.Namespace) -> Any:
    if arguments.bundle:
        from spatial_mllm_core.model import SpatialModel

        return SpatialModel.load(arguments.bundle)
    from spatial_mllm_training.probe.tapped import open_run

    return open_run(arguments.run, checkpoint=arguments.checkpoint)


def _refs(arguments: argparse.Namespace) -> list[SceneRef]:
    from spatial_mllm_training.make_multispa import find_all

    return find_all(arguments.scenes, arguments.option)


def _frames_of(data: Path) -> dict[str, set[str]]:
    """Scene -> names of the frames that the rows of a data set show."""
    from spatial_mllm_training.benchmark.data import load_rows

    frames: dict[str, set[str]] = {}
    for row in load_rows(data):
        frames.setdefault(row.spatial.scene, set()).update(row.spatial.frames)
    return frames


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not (match := re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)):
        raise SpatialError(
            ErrorCode.BAD_NUMBER, f"--size expects WIDTHxHEIGHT such as 448x336, found '{text}'"
        )
    return int(match[1]), int(match[2])


def _positive(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        if not 0 < (value := getattr(arguments, name)) < float("inf"):
            words = name.replace("_", "-")
            raise SpatialError(ErrorCode.BAD_NUMBER, f"--{words} must be positive, found {value:g}")


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "scene"


def _say(sentences: list[str]) -> None:
    for sentence in sentences:
        print(one_line(sentence), file=sys.stderr)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    write_atomically(file, f"{json.dumps(value, indent=2)}\n".encode(), replace=True)


if __name__ == "__main__":
    sys.exit(main())
