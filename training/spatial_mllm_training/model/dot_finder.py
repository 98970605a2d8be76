"""Finds the dots that are drawn into an image, and reads the letters beside them; knows no language."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spatial_mllm_core.tasks.dots import LABELS
from spatial_mllm_training.model.conv_block import ConvBlock
from spatial_mllm_training.model.normalised import Normalised

STRIDE = 4
WIDTH, HEIGHT = 256, 192
"""Of the images that it sees: letters of the published size can be read, in images of up to 1296 pixels."""
_STEM, _CHANNELS, _DILATIONS = 32, 64, (1, 2, 1)
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
NOWHERE = ROWS * COLUMNS
"""Stands for the cell of a dot that is not there."""


class DotFinder(nn.Module):
    """uint8 RGB images (B, HEIGHT, WIDTH, 3) -> (B, 5, ROWS, COLUMNS) log-odds of a dot of each of `LABELS`.

    Against its lying nowhere: a softmax over the cells and a 0 says how likely each is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalised = Normalised()
        self.stem = nn.Sequential(
            nn.Conv2d(3, _STEM, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(_STEM, _CHANNELS, 3, stride=2, padding=1),
        )
        self.blocks = nn.Sequential(*(ConvBlock(_CHANNELS, dilation) for dilation in _DILATIONS))
        self.out = nn.Conv2d(_CHANNELS, len(LABELS), 1)

    def forward(self, image_BHW3: Tensor) -> Tensor:
        scores: Tensor = self.out(self.blocks(self.stem(self.normalised(image_BHW3)))).float()
        return scores


def finding_loss(scores_B5HW: Tensor, cells_B5: Tensor) -> Tensor:
    """Mean cross-entropy of the cells in which the dots lie, `NOWHERE` for those that are not drawn."""
    return F.cross_entropy(_with_nowhere(scores_B5HW).flatten(0, 1), cells_B5.flatten())


def found_cells(scores_B5HW: Tensor) -> Tensor:
    """(B, 5) the likeliest cell of each dot, or `NOWHERE`."""
    return _with_nowhere(scores_B5HW).argmax(-1)


def _with_nowhere(scores_B5HW: Tensor) -> Tensor:
    return F.pad(scores_B5HW.flatten(2), (0, 1))
