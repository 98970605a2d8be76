"""Token rays carried from one grid to another, and the camera behind them; knows no image and no network.

A grid covers its image evenly. Rays are [x/z, y/z, log fx', log fy'] with f' in token pitches (DESIGN 3.1).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatial_mllm_core.camera import CameraModel

_LARGEST_BEND = 1e-4
"""Of rays, beyond which a lens is not that of a pinhole; float32 leaves about 1e-6."""

Grid = tuple[int, int]
"""(rows, columns)"""


def rays_on_grid(rays_BN4: Tensor, grid: Grid, wanted: Grid) -> tuple[Tensor, Tensor]:
    """((B, M, 4) rays of the same cameras at the tokens of another grid, (B,) bool where they are right).

    Right for every camera on its own grid, and for pinholes on any: what a lens does between the
    tokens and beyond the outer ones does not follow from the rays.
    """
    if grid == wanted:
        return rays_BN4, torch.ones(len(rays_BN4), dtype=torch.bool, device=rays_BN4.device)
    slopes, offsets = _pinhole_parts(rays_BN4, grid)
    rays = offsets.mean(dim=1, keepdim=True) + _centres(wanted, grid, rays_BN4.device) * slopes
    finer = torch.tensor([wanted[1] / grid[1], wanted[0] / grid[0]], device=rays_BN4.device).log()
    pitches = (rays_BN4[:, :1, 2:] + finer).expand(-1, rays.shape[1], -1)
    return torch.cat([rays.to(rays_BN4), pitches], dim=-1), _is_pinhole(offsets)


def directions_on_grid(rays_BN4: Tensor, grid: Grid, wanted: Grid) -> Tensor:
    """(B, *wanted, 3) float32 directions (x/z, y/z, 1) in each camera's frame; NaN where a lens bends them."""
    rays, is_right = rays_on_grid(rays_BN4, grid, wanted)
    directions = torch.cat([rays[..., :2], torch.ones_like(rays[..., :1])], dim=-1)
    directions[~is_right] = torch.nan
    return directions.unflatten(1, wanted)


def pinhole_of(rays_N4: Tensor, grid: Grid, width: int, height: int) -> CameraModel | None:
    """The camera of an image of width x height px from its token rays; None where the lens bends them."""
    slopes, offsets = (x[0].cpu().numpy() for x in _pinhole_parts(rays_N4[None], grid))
    if not bool(_is_pinhole(torch.from_numpy(offsets)[None])):
        return None
    focal: NDArray[np.float64] = np.array([width / grid[1], height / grid[0]]) / slopes[0]
    centre = -offsets.mean(axis=0) * focal - 0.5  # from the corner of the image to pixel centres
    k = np.array([[focal[0], 0.0, centre[0]], [0.0, focal[1], centre[1]], [0.0, 0.0, 1.0]])
    return CameraModel.from_k(k, width, height)


def _pinhole_parts(rays_BN4: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(rays per token pitch (B, 1, 2), rays less what they add from the corner of the image (B, N, 2)), float64.

    The second is -c/f at all tokens of a pinhole.
    """
    slopes = torch.exp(-rays_BN4[:, :1, 2:].double())
    return slopes, rays_BN4[..., :2].double() - _centres(grid, grid, rays_BN4.device) * slopes


def _is_pinhole(offsets_BN2: Tensor) -> Tensor:
    return (offsets_BN2.amax(dim=1) - offsets_BN2.amin(dim=1)).amax(dim=-1) < _LARGEST_BEND


def _centres(grid: Grid, pitches: Grid, device: torch.device) -> Tensor:
    """(N, 2) float64 (u, v) of the token centres from the image's corner, in token pitches of another grid."""
    v, u = (
        (torch.arange(n, dtype=torch.float64) + 0.5) * of / n for n, of in zip(grid, pitches, strict=True)
    )
    both = torch.stack([u.expand(len(v), -1), v[:, None].expand(-1, len(u))], dim=-1)
    return both.reshape(-1, 2).to(device)
