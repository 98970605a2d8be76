"""Depth images of MultiSPA rows, looked up in the sources that the rows were made from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.multispa.rows import Row
from spatial_mllm_training.sources import Scene, SceneRef, registry
from spatial_mllm_training.sources.posed_images import depth_in_colour


class DepthTruth:
    """Scenes by name, the last few kept open; each process opens its own."""

    OPEN = 8

    def __init__(self, refs: Sequence[SceneRef]) -> None:
        self._refs = {ref.name: ref for ref in refs}
        self._open: OrderedDict[str, Scene] = OrderedDict()

    @classmethod
    def of(cls, sources: Sequence[tuple[str, Path]]) -> DepthTruth:
        """From (kind, path) as `make_multispa --source` takes them; raises SceneProblem, SpatialError."""
        return cls([ref for kind, path in sources for ref in registry.find_scenes(kind, path)])

    def of_row(self, row: Row) -> list[NDArray[np.float32] | None]:
        """(H, W) z-depth at the colour pixels of every image, 0 = none; None where no source has it.

        Raises:
            SceneProblem: a depth image that does not open.
        """
        ref = self._refs.get(row.spatial.scene)
        if ref is None:
            return [None] * len(row.spatial.frames)
        scene = self._scene(ref)
        if not scene.has_depth:
            return [None] * len(row.spatial.frames)
        index = {frame.name: i for i, frame in enumerate(scene.frames)}
        found = [index.get(name) for name in row.spatial.frames]
        return [None if i is None else depth_in_colour(scene.frames[i], scene.depth_m(i)) for i in found]

    def _scene(self, ref: SceneRef) -> Scene:
        if ref.name not in self._open:
            if len(self._open) >= self.OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[ref.name] = ref.open(*ref.arguments)
        self._open.move_to_end(ref.name)
        return self._open[ref.name]
