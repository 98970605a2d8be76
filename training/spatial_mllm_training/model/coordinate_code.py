"""Where a visual token lies, in the code that coordinates are written in; for models trained from scratch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_core.tasks.text import COORDINATE_SCALE


class CoordinateCode(nn.Module):
    """Adds to every visual token the code of its centre on the 0-1000 scale of questions and answers.

    Tokens of whole numbers start as the same sinusoids (`sinusoids`): x is told in every other frequency,
    y in those between. So a coordinate of a question finds its token, and a token its coordinate, by a product
    that needs no learning. A published model knows how to point and gets none.

    Args:
        scale: amplitude; visual tokens of a trained model have a standard deviation of about 4.
    """

    def __init__(self, hidden: int, scale: float) -> None:
        super().__init__()
        self.hidden, self.scale = hidden, scale
        self._rows = lru_cache(maxsize=8)(self._made)

    def forward(self, grid_h: int, grid_w: int, like: Tensor) -> Tensor:
        """(grid_h * grid_w, D) in raster order, with the type and device of `like`."""
        return self._rows(grid_h, grid_w).to(like)

    def _made(self, grid_h: int, grid_w: int) -> Tensor:
        centres = [COORDINATE_SCALE * (np.arange(n) + 0.5) / n for n in (grid_h, grid_w)]
        y, x = (axis.ravel() for axis in np.meshgrid(*centres, indexing="ij"))
        of_x, of_y = (sinusoids(values, self.hidden, self.scale) for values in (x, y))
        tells_x = np.arange(self.hidden) % (self.hidden // 2) % 2 == 0
        return torch.from_numpy(np.where(tells_x, of_x, of_y).astype(np.float32))
