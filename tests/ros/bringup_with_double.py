"""The real bringup around a model double, for what a real model does not do on demand.

The double counts its words slowly, so that cancel, deadline and a full queue can be provoked; depth
is a plane. Run as a script with the arguments of bringup.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import spatial_model
from spatial_mllm_core.model.spatial_model import Perception

PLANE_M = 1.5
TOKEN_S = 0.05


class ModelDouble:
    """Answers every question with as many words as it may, one each 50 ms."""

    name = "double/0"

    def perceive(self, frame: Frame) -> Perception:
        frame.require_camera()
        shape = (frame.height, frame.width)
        return Perception(np.full(shape, PLANE_M, np.float32), np.full(shape, 0.5, np.float32))

    def ask(self, request: AskRequest, on_text=None, should_stop=None) -> Answer:
        began = time.monotonic()
        words: list[str] = []
        for i in range(request.max_new_tokens):
            if should_stop is not None and should_stop():
                raise SpatialError(ErrorCode.CANCELED, f"canceled after {i} tokens")
            if request.deadline_s is not None and time.monotonic() - began > request.deadline_s:
                raise SpatialError(ErrorCode.DEADLINE_EXCEEDED, f"the deadline passed after {i} tokens")
            time.sleep(TOKEN_S)
            words.append(str(i))
            if on_text is not None:
                on_text(" ".join(words))
        return Answer(
            task=request.task,
            question=_words(request),
            text=" ".join(words),
            kind="text",
            values=(),
            unit="",
            label="",
            frame_id=request.frames[0].frame_id,
            stamps_ns=tuple(f.stamp_ns for f in request.frames),
            confidence=1.0,
            latency_s=time.monotonic() - began,
            model=self.name,
        )


def _words(request: AskRequest) -> str:
    """The question as the real model words it; its points lie on the 0-1000 scale already."""
    if not request.task:
        return request.question
    points = tuple((int(u), int(v)) for u, v in request.points_px)
    return tasks.get(request.task).question(points, variant=request.variant, category=request.category)


def load(path: str = "", *, backend: str = "cpu", threads: int | None = None) -> ModelDouble:
    if path == "missing":
        raise SpatialError(ErrorCode.MODEL_MISSING, "no model bundle named 'missing'")
    return ModelDouble()


if __name__ == "__main__":
    spatial_model.SpatialModel.load = load  # type: ignore[method-assign,assignment]
    from spatial_mllm.bringup import main

    sys.exit(main())
