"""Typed questions and answers; text is parsed into them once, in the task that owns the question."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_core.frames.frame import Frame


@dataclass(frozen=True)
class AskRequest:
    """A question about one or more kept frames.

    Attributes:
        task: published MultiSPA subtask name (`spatial_mllm_core.tasks.names()`), or "" for free text.
        frames: the frames in the order the question speaks of them (Image-1, Image-2, ...).
        points_px: (u, v) raw pixels of the first frame, integer coordinates are pixel centres.
        question: free text; used only when `task` is "".
        choices: the answers that a free question admits; () for any. A task knows its own.
        wants_coordinate: a free question is answered by a coordinate of the last image. A task knows it.
        category: what an object-size task asks about, such as "chair"; used only by these.
        variant: which of two things a task asks for, such as "farther"; "" for its first.
        max_new_tokens: bound on the decoded answer.
        deadline_s: seconds from now after which decoding stops with DEADLINE_EXCEEDED; None = no bound.
    """

    task: str
    frames: tuple[Frame, ...]
    points_px: tuple[tuple[float, float], ...] = ()
    question: str = ""
    max_new_tokens: int = 48
    deadline_s: float | None = None
    category: str = ""
    variant: str = ""
    choices: tuple[str, ...] = ()
    wants_coordinate: bool = False


@dataclass(frozen=True)
class Answer:
    """A parsed answer. Numbers are SI (metres, radians); pixels are raw pixels of the frame they lie in.

    Attributes:
        task: subtask name, "" for free text.
        question: the exact question text the model read.
        text: the model's text.
        kind: "scalar", "vector", "label", "pixel" or "text".
        values: () for labels and text, (v,) for scalars, (x, y, z) for vectors, (u, v) for pixels.
        unit: "m", "rad", "px" or "".
        label: word or letter of a label answer.
        frame_id: frame in which `values` are expressed: the optical frame of the first image, or of the
            image that a pixel lies in.
        stamps_ns: stamps of the frames the answer speaks of.
        confidence: mean token probability of the decoded answer, in [0, 1]; not calibrated.
        latency_s: wall time from request to answer.
        model: name and version of the bundle.
    """

    task: str
    question: str
    text: str
    kind: str
    values: tuple[float, ...]
    unit: str
    label: str
    frame_id: str
    stamps_ns: tuple[int, ...]
    confidence: float
    latency_s: float
    model: str
