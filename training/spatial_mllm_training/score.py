"""Score a bundle on held-out scenes with the runtime that serves it, beside a blind baseline.

    python -m spatial_mllm_training.score --bundle models/spatial-mllm-mini \\
        --scenes data/workspace --held-out 100100:100160 --out runs/score.json

Depth: AbsRel and delta1 over all valid cells. Questions: the published rule of each task. The
blind baseline answers from the question alone: the median (scalars, vectors), the majority
(words) or the first point (comparisons) of the training split.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.tasks.text import coordinate_to_pixel
from spatial_mllm_training.data.pairs import PairBuilder, PairConfig, Question
from spatial_mllm_training.data.tokenizer import build_tokenizer
from spatial_mllm_training.scenes.split import scene_files, seed_of

BLIND_SAMPLES = 400


def blind_answers(builder: PairBuilder, rng: np.random.Generator) -> dict[str, tasks.TaskValue]:
    """The constant answer per task: median or majority of training truths; {} for comparisons."""
    truths: dict[str, list[tasks.TaskValue]] = defaultdict(list)
    for _ in range(BLIND_SAMPLES):
        view = builder.draw(rng)
        for question in view.single + view.pair:
            truths[question.task.name].append(question.truth)
    answers = {}
    for name, values in truths.items():
        kind = tasks.get(name).kind
        if kind == "label":
            answers[name] = tasks.TaskValue(label=Counter(v.label for v in values).most_common(1)[0][0])
        elif kind != "coordinate":
            median = np.median([v.values for v in values], axis=0)
            answers[name] = tasks.TaskValue(tuple(float(m) for m in median))
    return answers


def blind_answer(question: Question, constants: dict[str, tasks.TaskValue]) -> tasks.TaskValue:
    """What an answerer that sees no image says."""
    if question.task.kind == "coordinate":
        return tasks.TaskValue(tuple(float(c) for c in question.points[0]))
    return constants[question.task.name]


def median_depth_m(builder: PairBuilder, rng: np.random.Generator) -> float:
    """The one depth that a blind answerer gives everywhere."""
    views = [builder.draw(rng).depth_m for _ in range(BLIND_SAMPLES)]
    return float(np.median(np.concatenate([v[v > 0] for v in views])))


def _abs_rel(ratio: np.ndarray) -> float:
    return round(float(np.abs(ratio - 1).mean()), 4)


def _delta1(ratio: np.ndarray) -> float:
    return round(float((np.maximum(ratio, 1 / ratio) < 1.25).mean()), 4)


def score(
    model: SpatialModel, test: PairBuilder, train: PairBuilder, views: int, seed: int
) -> dict[str, Any]:
    """Figures of a model on random views of the test scenes."""
    rng = np.random.default_rng(seed)
    constants = blind_answers(train, np.random.default_rng(seed + 1))
    constant_m = median_depth_m(train, np.random.default_rng(seed + 2))
    ratios: list[np.ndarray] = []
    blind_ratios: list[np.ndarray] = []
    hits: dict[str, list[bool]] = defaultdict(list)
    blind: dict[str, list[bool]] = defaultdict(list)
    errors: dict[str, list[float]] = defaultdict(list)
    for number in tqdm(range(views), unit="pair"):
        view = test.draw(rng)
        frames = [
            Frame(2 * number + i + 1, "optical", np.ascontiguousarray(view.images[i]), view.camera)
            for i in (0, 1)
        ]
        for frame, truth_m in zip(frames, view.depth_m, strict=True):
            depth_m = cv2.resize(
                model.perceive(frame).depth_m, truth_m.shape[::-1], interpolation=cv2.INTER_AREA
            )
            valid = truth_m > 0
            ratios.append(depth_m[valid] / truth_m[valid])
            blind_ratios.append(constant_m / truth_m[valid])
        for question in view.single + view.pair:
            asked = tuple(frames[: question.task.frame_count])
            points = tuple(coordinate_to_pixel(p, frames[0].width, frames[0].height) for p in question.points)
            name = question.task.name
            blind[name].append(question.task.is_correct(blind_answer(question, constants), question.truth))
            try:
                answer = model.ask(AskRequest(name, asked, points))
                predicted = question.task.parse(answer.text)
            except SpatialError:
                hits[name].append(False)
                continue
            hits[name].append(question.task.is_correct(predicted, question.truth))
            if question.task.kind in ("scalar", "vector"):
                errors[name].append(
                    float(np.linalg.norm(np.subtract(predicted.values, question.truth.values)))
                )
    every = np.concatenate(ratios)
    constant = np.concatenate(blind_ratios)
    table = {
        name: {
            "n": len(hits[name]),
            "accuracy": round(100 * float(np.mean(hits[name])), 1),
            "standard_error": round(100 * float(np.std(hits[name]) / np.sqrt(len(hits[name]))), 1),
            "blind": round(100 * float(np.mean(blind[name])), 1),
            **({"median_error_mm": round(1000 * float(np.median(errors[name])), 1)} if errors[name] else {}),
        }
        for name in tasks.names()
        if hits[name]
    }
    return {
        "depth": {
            "abs_rel": _abs_rel(every),
            "delta1": _delta1(every),
            "blind_abs_rel": _abs_rel(constant),
            "blind_delta1": _delta1(constant),
            "images": 2 * views,
        },
        "tasks": table,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True, help="folder with training and held-out scenes")
    parser.add_argument(
        "--held-out", default="100100:100160", help="FIRST:LAST test seeds, last not included"
    )
    parser.add_argument("--views", type=int, default=300, help="random pairs of views (default %(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    first, last = (int(part) for part in args.held_out.split(":"))
    held_out = [f for f in scene_files(args.scenes, held_out=True) if first <= seed_of(f) < last]
    training = scene_files(args.scenes, held_out=False)
    if not held_out or not training:
        raise SystemExit(
            f"{args.scenes} needs training scenes and held-out seeds {args.held_out}; run make_scenes"
        )
    model = SpatialModel.load(args.bundle)
    tokenizer = build_tokenizer()
    config = dataclasses.replace(PairConfig(), width=model.manifest.width, height=model.manifest.height)
    figures = score(
        model,
        PairBuilder(held_out, tokenizer, config, augment=False),
        PairBuilder(training, tokenizer, config, augment=False),
        args.views,
        args.seed,
    )
    figures["split"] = (
        f"{len(held_out)} held-out scenes, seeds {args.held_out}, {args.views} pairs, seed {args.seed}"
    )
    figures["data"] = f"{len(training)} scenes, all seeds below 100000."
    text = json.dumps(figures, indent=2)
    print(text)
    if args.out:
        write_atomically(args.out, f"{text}\n".encode(), replace=True)


if __name__ == "__main__":
    main()
