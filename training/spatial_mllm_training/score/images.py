"""Which scenes and images a bundle is measured on; knows no model.

Simulated scenes by seed and by camera: fields of view that training scenes have, and held-out ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.multispa.split import split_of
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG, hfov_deg_of
from spatial_mllm_training.scenes.split import FIRST_HELD_OUT_SEED
from spatial_mllm_training.sources import SceneProblem, SceneRef
from spatial_mllm_training.sources.posed_images import Place, PosedImage, read
from spatial_mllm_training.sources.simulated import find_scenes


@dataclass(frozen=True)
class SceneSets:
    """Simulated scenes apart.

    Attributes:
        training: what blind figures are learnt from.
        known_cameras, other_cameras: held-out scenes with fields of view as in training, and others.
    """

    training: tuple[SceneRef, ...]
    known_cameras: tuple[SceneRef, ...]
    other_cameras: tuple[SceneRef, ...]


@dataclass
class Domain:
    """What images show, in numbers gathered one image at a time."""

    hfov_deg: list[float] = field(default_factory=list)
    true_m: list[float] = field(default_factory=list)

    def add(self, image: PosedImage) -> None:
        """Take note of an image; an evenly spread few of its depths are enough."""
        valid = image.true_m[image.true_m > 0]
        self.true_m += valid[:: 1 + len(valid) // 50].tolist()
        self.hfov_deg.append(float(np.degrees(image.camera.hfov_rad)))

    @property
    def words(self) -> str:
        """Fields of view and depths; "" without an image."""
        if not self.true_m:
            return ""
        low, high = np.percentile(self.true_m, [5, 95])
        views = f"{min(self.hfov_deg):.0f}"
        if max(self.hfov_deg) - min(self.hfov_deg) >= 1:
            views += f" to {max(self.hfov_deg):.0f}"
        return f"{views}° wide, {low:.1f} to {high:.1f} m deep"


def scene_sets(folders: Sequence[Path], seeds: range) -> SceneSets:
    """The scenes of some folders.

    Args:
        seeds: of the test scenes; those below `FIRST_HELD_OUT_SEED` are never tested on.

    Raises:
        SceneProblem: a folder without scenes, or a broken one. SpatialError: NO_FRAME without
            training or test scenes.
    """
    refs = [ref for folder in folders for ref in find_scenes(folder)]
    training = [r for r in refs if _seed(r) < FIRST_HELD_OUT_SEED]
    tested = [r for r in refs if _seed(r) >= FIRST_HELD_OUT_SEED and _seed(r) in seeds]
    if not training or not tested:
        places = " and ".join(f"'{folder}'" for folder in folders)
        raise SpatialError(
            ErrorCode.NO_FRAME,
            f"{places} need training scenes and test scenes of the seeds "
            f"{seeds.start} to {seeds.stop - 1}, found {len(training)} and {len(tested)}; run make_scenes",
        )
    other = [r for r in tested if _has_other_camera(r)]
    return SceneSets(tuple(training), tuple(r for r in tested if r not in other), tuple(other))


def draw(refs: Sequence[SceneRef], images: int, seed: int) -> list[tuple[SceneRef, list[Place]]]:
    """About so many images, at least one a scene and equally many of each as far as it has them, by chance.

    With fewer images than scenes, scenes are taken evenly. Equal seeds give equal images.

    Raises:
        SceneProblem: a scene that does not open.
    """
    if images < 1 or not refs:
        return []
    chosen = [refs[i] for i in np.unique(np.linspace(0, len(refs) - 1, min(images, len(refs))).astype(int))]
    each = -(-images // len(chosen))
    picked = []
    for number, ref in enumerate(chosen):
        scene = ref.open(*ref.arguments)
        try:
            frames = scene.frames if scene.has_depth else []
            order = np.random.default_rng([seed, number]).permutation(len(frames))[:each]
            places = [Place(ref.name, frames[i].name, int(i), split_of(ref)) for i in sorted(order)]
        finally:
            scene.close()
        if places:
            picked.append((ref, places))
    return picked


def in_turn(picked: Sequence[tuple[SceneRef, list[Place]]]) -> list[tuple[SceneRef, list[Place]]]:
    """One image of every scene, then the next: the first few are of many scenes."""
    most = max((len(places) for _, places in picked), default=0)
    return [(ref, [places[i]]) for i in range(most) for ref, places in picked if i < len(places)]


def posed(picked: Sequence[tuple[SceneRef, list[Place]]], notes: list[str]) -> Iterator[PosedImage]:
    """The images that open, one at a time; a sentence in `notes` for each that does not."""
    count = sum(len(places) for _, places in picked)
    for _, image in tqdm(read(picked, notes), total=count, unit="image", disable=None, leave=False):
        if image is not None:
            yield image


def _seed(ref: SceneRef) -> int:
    assert ref.seed is not None  # find_scenes of simulated scenes gives each one
    return ref.seed


def _has_other_camera(ref: SceneRef) -> bool:
    """By the field of view that `make_scenes` drew, whatever the principal point."""
    scene = ref.open(*ref.arguments)
    if not scene.frames:
        raise SceneProblem(ref.name, ref.name, "has no frames")
    camera = scene.frames[0].camera
    scene.close()
    hfov_deg = hfov_deg_of(camera.k, camera.width)
    return any(low <= hfov_deg <= high for low, high in HELD_OUT_HFOV_DEG)
