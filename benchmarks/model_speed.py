"""The shipped model without ROS: depth per second, and how long a question takes, cold and with its prefix kept.

    python model_speed.py --threads 2 --frames 20 --repeats 5

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pictures
from samples import percentile, summary

from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_core.tasks.depth import DEPTH_VALUE
from spatial_mllm_core.tasks.object_motion import OBJECT_DISTANCE

WIDTH, HEIGHT = 640, 480
WARM_UP = 3
_stamps_ns = count(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--questions", action="store_true", help="measure questions, too")
    options = parser.parse_args()
    model = SpatialModel.load(threads=options.threads)
    frames = pictures.load(max(2, options.frames), WIDTH, HEIGHT)
    for frame in frames[:WARM_UP]:
        model.perceive(_new(frame))
    result: dict[str, Any] = {"model": model.name, "depth": _depth(model, frames, options.repeats)}
    if options.questions:
        result["one_frame_question"] = _questions(model, frames, options.repeats, DEPTH_VALUE.name, 1)
        name = OBJECT_DISTANCE[False].name
        result["two_frame_question"] = _questions(model, frames, options.repeats, name, 2)
    print(json.dumps(result))


def _new(frame: Frame) -> Frame:
    """The frame under a stamp that the model has not seen: nothing computed before is found again."""
    return replace(frame, stamp_ns=next(_stamps_ns))


def _depth(model: SpatialModel, frames: list[Frame], repeats: int) -> dict[str, Any]:
    wall_ms, cpu_ms, rates = [], [], []
    for _ in range(repeats):
        fresh = [_new(frame) for frame in frames]
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        for frame in fresh:
            model.perceive(frame)
        took_s = time.perf_counter() - began_s
        wall_ms.append(1e3 * took_s / len(fresh))
        cpu_ms.append(1e3 * (time.process_time() - began_cpu_s) / len(fresh))
        rates.append(len(fresh) / took_s)
    return {"fps": summary(rates), "ms": summary(wall_ms), "cpu_ms": summary(cpu_ms)}


def _questions(
    model: SpatialModel, frames: list[Frame], repeats: int, task: str, frame_count: int
) -> dict[str, Any]:
    """Each question over frames never seen, over the same frames again, and over the first kept and a new second."""
    point_px = (pictures.POINT[0] * WIDTH, pictures.POINT[1] * HEIGHT)
    states = ("cold", "kept") if frame_count == 1 else ("cold", "kept", "first_kept")
    times_ms: dict[str, list[list[float]]] = {state: [[] for _ in range(repeats)] for state in states}
    tokens: list[int] = []
    unreadable = 0
    for repeat in range(repeats):
        for i in range(len(frames)):
            seen = tuple(_new(frames[(i + j * len(frames) // 2) % len(frames)]) for j in range(frame_count))
            for state in states:
                chosen = (seen[0], _new(seen[1])) if state == "first_kept" else seen
                request = AskRequest(task=task, frames=chosen, points_px=(point_px,))
                spoken: list[str] = []
                began_s = time.perf_counter()
                unreadable += not _ask(model, request, spoken.append)
                times_ms[state][repeat].append(1e3 * (time.perf_counter() - began_s))
                tokens.append(len(spoken))
    p50_ms = {state: [percentile(times, 50) for times in times_ms[state]] for state in states}
    result: dict[str, Any] = {"task": task, "asked": len(tokens), "unreadable_answers": unreadable}
    for state in states:
        result[f"{state}_p50_ms"] = summary(p50_ms[state])
        result[f"{state}_p95_ms"] = summary(percentile(times, 95) for times in times_ms[state])
        result[f"{state}_gain"] = summary(c / k for c, k in zip(p50_ms["cold"], p50_ms[state], strict=True))
    return {**result, "tokens_per_answer": summary(tokens)}


def _ask(model: SpatialModel, request: AskRequest, on_text: Callable[[str], None]) -> bool:
    """Ask; False when the words could not be read as a value, which takes as long."""
    try:
        model.ask(request, on_text)
    except SpatialError as fault:
        if fault.code is not ErrorCode.UNPARSABLE_ANSWER:
            raise
        return False
    return True


if __name__ == "__main__":
    main()
