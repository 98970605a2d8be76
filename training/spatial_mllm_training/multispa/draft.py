"""A question before it has words: which frames, which pixels, what is true. Pure geometry."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_core.tasks import TaskValue


@dataclass(frozen=True)
class DraftPoint:
    """A pixel of one of the question's images and the surface point it shows.

    Attributes:
        image: which of the question's images, from 0.
        u_px, v_px: exact pixel (integers are centres) in the raw colour image.
        depth_m: z-depth in that image's camera.
        point_in_world_m: the surface point at the time of that image.
        role: "asked" (named in the question), "answer" (the truth's pixel), "choice" (lettered).
        label: letter drawn beside it, or "".
    """

    image: int
    u_px: float
    v_px: float
    depth_m: float
    point_in_world_m: tuple[float, float, float]
    role: str = "asked"
    label: str = ""


@dataclass(frozen=True)
class Draft:
    """One question of a subtask about frames of a scene.

    Attributes:
        subtask: published `question_type`.
        frames: indices into the scene's frames, in the question's order.
        points: see DraftPoint; asked points first, in the question's order.
        truth: exact, not rounded: metres (scalar, vector), degrees (angle), the 0-1000 scale
            (coordinate, not rounded) or a word.
        variant: wording family, e.g. "closer" or "farther".
        category: what an object-size question is about.
        group: what balanced it, e.g. "overlap 12 %" or "displacement 0.10-0.20 m"; for the statistics page.
    """

    subtask: str
    frames: tuple[int, ...]
    points: tuple[DraftPoint, ...]
    truth: TaskValue
    variant: str = ""
    category: str = ""
    group: str = ""
