"""Images of scenes with dots drawn into them, as the published subtasks draw them, and where these lie."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.images.resize import resized
from spatial_mllm_core.tasks.dots import LABELS, PLAIN
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.model.dot_finder import COLUMNS, HEIGHT, NOWHERE, ROWS, WIDTH
from spatial_mllm_training.multispa.dots import Dot, draw
from spatial_mllm_training.scenes.split import scene_files, validation_files

_SETS = ((), (PLAIN,), ("A", "B"), ("A", "B", "C", "D"))
"""What an image shows: nothing, or the dots of a subtask."""
_WIDTHS_PX = (128, 160, 224, 320, 448, 640, 960, 1296)
"""Of the images that are drawn into; letters and dots shrink with them."""
_BORDER, _APART = 0.03, 0.06
"""Shares of the width."""
_LIGHT, _CONTRAST, _NOISE = 25.0, 0.3, 6.0


class DrawnDots(NamedTuple):
    """An image (HEIGHT, WIDTH, 3) uint8 RGB and the cell of each of `LABELS` in it (5,), `NOWHERE` for none."""

    image: NDArray[np.uint8]
    cells: NDArray[np.int64]


class DrawnDotsSource:
    """Sample i is drawn with a generator seeded by (seed, i).

    Args:
        validation: scenes of the seeds for that; training looks at no test scene.

    Raises:
        ValueError: no scene of the split lies there.
    """

    def __init__(self, scenes: Path, seed: int, *, validation: bool) -> None:
        self.files = validation_files(scenes) if validation else scene_files(scenes, held_out=False)
        if not self.files:
            raise ValueError(
                f"'{scenes}' holds no scene of {'validation' if validation else 'training'} seeds; "
                "write some with make_scenes"
            )
        self.seed = seed

    def sample(self, number: int) -> DrawnDots:
        rng = np.random.default_rng([self.seed, 29, number])
        width = int(rng.choice(_WIDTHS_PX))
        return drawn(self._background(width, rng), rng)

    def _background(self, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """(H, width, 3) beside each other as many scenes as make it about as sharp as what is drawn into it.

        A finder that sees dots in enlarged images alone takes everything sharp for drawn.
        """
        height = round(width * HEIGHT / WIDTH)
        first = self._image(rng)
        most = max(1, round(min(width, WIDTH) / first.shape[1]))
        count = int(rng.integers(1, most + 2))
        images = [first, *(self._image(rng) for _ in range(count * count - 1))]
        rows = [np.concatenate(images[row * count : (row + 1) * count], axis=1) for row in range(count)]
        return resized(np.ascontiguousarray(np.concatenate(rows)), width, height)

    def _image(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        seen = map_npz(self.files[int(rng.integers(len(self.files)))])["rgb"]
        step, view = (int(rng.integers(count)) for count in seen.shape[:2])
        image = np.asarray(seen[step, view])
        return image[:, ::-1] if rng.random() < 0.5 else image

    def digest(self) -> str:
        """sha256 of what the samples depend on."""
        about = [f"{_SETS} {_WIDTHS_PX} {self.seed}", *(file.name for file in self.files)]
        return hashlib.sha256("\n".join(about).encode()).hexdigest()


def drawn(image: NDArray[np.uint8], rng: np.random.Generator) -> DrawnDots:
    """Dots of one subtask, or none, drawn into an image and seen at the finder's size."""
    height, width = image.shape[:2]
    labels = _SETS[int(rng.integers(len(_SETS)))]
    dots: list[Dot] = []
    while len(dots) < len(labels):
        u, v = rng.uniform(_BORDER * width, (width * (1 - _BORDER), height - _BORDER * width))
        if all(np.hypot(u - dot.u_px, v - dot.v_px) > _APART * width for dot in dots):
            dots.append(Dot(float(u), float(v), labels[len(dots)]))
    marked, _ = draw(image, dots, rng)
    cells = np.full(len(LABELS), NOWHERE, np.int64)
    for dot in dots:
        row = min(int((dot.v_px + 0.5) / height * ROWS), ROWS - 1)
        column = min(int((dot.u_px + 0.5) / width * COLUMNS), COLUMNS - 1)
        cells[LABELS.index(dot.label)] = row * COLUMNS + column
    return DrawnDots(_in_other_light(resized(marked, WIDTH, HEIGHT), rng), cells)


def _in_other_light(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brighter or darker, with more or less contrast and grain."""
    gain, shift = 1 + rng.uniform(-_CONTRAST, _CONTRAST), rng.uniform(-_LIGHT, _LIGHT)
    grain = rng.standard_normal(image.shape, np.float32) * rng.uniform(0, _NOISE)
    return np.clip(np.rint((image - 128.0) * gain + 128.0 + shift + grain), 0, 255).astype(np.uint8)
