"""Dense depth of images against the truth at every pixel, beside two blind ones; knows no bundle.

AbsRel and delta1 of each image first, then the mean of a scene, then the mean over scenes.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.evaluation.metrics import DepthError, depth_error
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_training.export.record import ABS_REL, DELTA1, Measured, over_scenes
from spatial_mllm_training.score.images import Domain
from spatial_mllm_training.sources.posed_images import PosedImage

MAP_SIZE = (64, 48)
POINTS_SHOWN = 2
Predict = Callable[[NDArray[np.uint8], CameraModel], NDArray[np.floating]]
"""(H, W, 3) uint8 image with its camera -> (H, W) z-depth, metres; SpatialError where it is refused."""


def predictor(model: SpatialModel) -> Predict:
    """The depth that the runtime serves."""
    stamps_ns = itertools.count(1)

    def predict(image: NDArray[np.uint8], camera: CameraModel) -> NDArray[np.floating]:
        frame = Frame(next(stamps_ns), "optical", np.ascontiguousarray(image), camera)
        return model.perceive(frame).depth_m

    return predict


@dataclass(frozen=True, eq=False)
class BlindDepth:
    """What an answerer without eyes gives, learnt on training images.

    Attributes:
        constant_m: median of all valid depths.
        map_m: (h, w) mean depth of the place in the image, in log space; it knows that floors are below.
        domain: of the images.
    """

    constant_m: float
    map_m: NDArray[np.float32]
    domain: Domain

    @classmethod
    def fit(cls, images: Iterable[PosedImage]) -> BlindDepth | None:
        """Both from one look at each image; None without a valid depth."""
        width, height = MAP_SIZE
        total, count = np.zeros((height, width)), np.zeros((height, width))
        some, domain = [], Domain()
        for image in images:
            domain.add(image)
            true_m = np.where(np.isfinite(image.true_m) & (image.true_m > 0), image.true_m, 0)
            cells = cv2.resize(true_m, MAP_SIZE, interpolation=cv2.INTER_NEAREST)
            known = cells > 0
            total[known] += np.log(cells[known])
            count += known
            some.append(true_m[true_m > 0][::31])
        if not count.any():
            return None
        constant_m = float(np.median(np.concatenate(some)))
        mean = np.where(count > 0, total / np.maximum(count, 1), math.log(constant_m))
        return cls(constant_m, np.exp(mean).astype(np.float32), domain)

    def predict(self, image: NDArray[np.uint8], camera: CameraModel) -> NDArray[np.floating]:
        """A `Predict` that looks at nothing: the map, stretched over the image."""
        return np.asarray(cv2.resize(self.map_m, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))


@dataclass
class DepthScore:
    """What was found on a set of images.

    Attributes:
        errors: by answerer ("model", "map", "constant") and scene, one per image.
        pairs: (true, predicted) of a few pixels by chance, metres.
        notes: why images were left out.
        domain: of the images.
    """

    errors: dict[str, dict[str, list[DepthError]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    pairs: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    domain: Domain = field(default_factory=Domain)

    @property
    def images(self) -> int:
        return sum(len(v) for v in self.errors["model"].values())


def judge(
    images: Iterable[PosedImage], predict: Predict, blind: BlindDepth | None, *, seed: int = 0
) -> DepthScore:
    """Compare the depth of every image with its truth; an image that is refused gets a note."""
    found = DepthScore()
    rng = np.random.default_rng(seed)
    for image in images:
        valid = np.flatnonzero(np.isfinite(image.true_m) & (image.true_m > 0))
        if not len(valid):
            continue
        try:
            depth_m = np.asarray(predict(image.image_rgb, image.camera))
        except SpatialError as fault:
            found.notes.append(f"scene '{image.place.scene}', image {image.place.frame}: {fault.sentence}")
            continue
        answers = {"model": depth_m}
        if blind is not None:
            answers["map"] = blind.predict(image.image_rgb, image.camera)
            answers["constant"] = np.full_like(image.true_m, blind.constant_m)
        for name, answer in answers.items():
            error = depth_error(answer, image.true_m)
            assert error is not None  # there are valid pixels, and an answer at each
            found.errors[name][image.place.scene].append(error)
        some = rng.choice(valid, POINTS_SHOWN)
        found.pairs += zip(image.true_m.flat[some].tolist(), depth_m.flat[some].tolist(), strict=True)
        found.domain.add(image)
    return found


def figures(found: DepthScore, key: str, where: str, *, has_goal: bool) -> list[Measured]:
    """AbsRel and delta1; the blind one beside each is the better of the map and the constant."""
    lines = []
    for name, what, goal in (("abs_rel", "AbsRel", ABS_REL), ("delta1", "delta1", DELTA1)):
        values = {
            who: over_scenes({s: [float(getattr(e, name)) for e in errors] for s, errors in scenes.items()})
            for who, scenes in found.errors.items()
        }
        value, error = values.pop("model", (math.nan, math.nan))
        blind, blind_name, others = _best({w: v[0] for w, v in values.items()}, name)
        lines.append(
            Measured(
                f"depth/{key}/{name}", f"dense depth, {what}", where, value, error, blind, blind_name,
                found.images, "images", len(found.errors["model"]), goal if has_goal else None,
                note="; ".join(filter(None, (found.domain.words, others))) if found.images else _why(found),
            )
        )  # fmt: skip
    return lines


def _best(blind: dict[str, float], name: str) -> tuple[float, str, str]:
    """The better one, its name, and the other in words."""
    names = {"map": "mean depth map of training images", "constant": "median depth of training images"}
    if not blind:
        return math.nan, "", ""
    order = sorted(blind, key=lambda who: blind[who], reverse=name != "abs_rel")
    return blind[order[0]], names[order[0]], "; ".join(f"{names[w]}: {blind[w]:.3f}" for w in order[1:])


def _why(found: DepthScore) -> str:
    return found.notes[0] if found.notes else "no image with a true depth"
