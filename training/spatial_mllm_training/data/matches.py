"""Where the cells of a view lie in another one of the scene; knows no model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.data.scene_view import SceneView, carried

_MOVED_M = 0.01


def match_map(first: SceneView, second: SceneView, rows: int, columns: int) -> NDArray[np.float32]:
    """(rows, columns, 3) x and y of the first image's cells in the second one, in shares of its width and height.

    A cell is followed by what its middle shows, wherever that has moved; NaN where the second image does not show it.
    The third number is 1 where it has moved in the scene, else 0.
    """
    frame_rows, frame_columns = first.depth_mm.shape
    v, u = np.mgrid[:frame_rows, :frame_columns]
    pixels = np.stack([first.cells(u, rows, columns), first.cells(v, rows, columns)], axis=-1).reshape(-1, 2)
    known = first.depth_mm[pixels[:, 1], pixels[:, 0]] > 0
    in_world, body = first.in_world(pixels)
    later = carried(first, second, in_world, body)
    is_seen, shown_at = second.sees(later)
    places = (shown_at + 0.5) / (second.width, second.height)
    places[~(known & is_seen)] = np.nan
    has_moved = np.linalg.norm(later - in_world, axis=1) > _MOVED_M
    return np.concatenate([places, has_moved[:, None]], axis=1).reshape(rows, columns, 3).astype(np.float32)
