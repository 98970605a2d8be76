"""Picks pixels that can be asked about: inside the border, with depth, off the edges; knows no questions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.multispa.draft import DraftPoint
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import SceneProblem

_DEPTH_BINS = 8


class FramePixels:
    """The pixels of one frame that can be asked about.

    Attributes:
        uv_px: (n, 2) int64 pixels.
        depth_m: (n,) depth there.
    """

    def __init__(self, prepared: PreparedScene, frame: int) -> None:
        self.prepared, self.frame = prepared, frame
        usable = ~prepared.edge_mask(frame)
        border = prepared.config.points.border_px
        inner = np.zeros_like(usable)
        inner[border : usable.shape[0] - border, border : usable.shape[1] - border] = True
        v, u = np.nonzero(usable & inner)
        uv = np.column_stack([u, v]).astype(np.int64)
        depth_m = prepared.sample_depth_m(frame, uv)
        seen = depth_m > 0
        self.uv_px, self.depth_m = uv[seen], depth_m[seen].astype(np.float64)
        self._bins: list[NDArray[np.int64]] | None = None

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count,) indices of pixels, even over eight equal steps of log depth that the frame shows."""
        if self._bins is None:
            scale = np.log(self.depth_m)
            low, high = np.percentile(scale, (1, 99))
            place = np.clip(
                (_DEPTH_BINS * (scale - low) / max(high - low, 1e-6)).astype(int), 0, _DEPTH_BINS - 1
            )
            bins = (np.flatnonzero(place == b) for b in range(_DEPTH_BINS))
            self._bins = [b for b in bins if len(b)]
        chosen = rng.integers(len(self._bins), size=count)
        return np.array([rng.choice(self._bins[b]) for b in chosen], np.int64)

    def point(self, index: int, *, image: int = 0, role: str = "asked", label: str = "") -> DraftPoint:
        """The picked pixel as a point of a question."""
        u, v = self.uv_px[index].tolist()
        return surface_point(self.prepared, self.frame, (u, v), self.depth_m[index], image, role, label)


def usable_frames(prepared: PreparedScene, rng: np.random.Generator) -> list[int]:
    """Frames with depth in random order."""
    frames = [frame for _, visible in sorted(prepared.states.items()) for frame in visible.frames]
    return [frames[i] for i in rng.permutation(len(frames))]


def frame_pixels(prepared: PreparedScene, frame: int) -> FramePixels | None:
    """The frame's pixels, None where nothing can be asked about."""
    try:
        pixels = FramePixels(prepared, frame)
    except SceneProblem:
        return None
    return pixels if len(pixels.uv_px) else None


def surface_point(
    prepared: PreparedScene,
    frame: int,
    uv_px: tuple[float, float],
    depth_m: float,
    image: int,
    role: str,
    label: str = "",
) -> DraftPoint:
    """The surface at a pixel and z-depth of a frame."""
    about = prepared.scene.frames[frame]
    in_camera = about.camera.unproject(np.array([uv_px], float), np.array([depth_m], float))[0]
    world = about.world_from_camera[:3, :3] @ in_camera + about.world_from_camera[:3, 3]
    x, y, z = world.tolist()
    return DraftPoint(image, float(uv_px[0]), float(uv_px[1]), float(depth_m), (x, y, z), role, label)
