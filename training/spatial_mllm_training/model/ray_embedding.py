"""Dense camera conditioning: one ray embedding per visual token (DESIGN 3.1, CA-MLLM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RayEmbedding(nn.Module):
    """[(u-cx)/fx, (v-cy)/fy, log fx', log fy'] -> sinusoids -> 2-layer MLP with a zero last layer.

    f' is the focal length in token pitches. At initialisation the output is exactly zero, so a
    wrapped model equals its base. Where K is missing, a learned null vector stands in its place.

    Shapes: B batch, N tokens, D hidden size.
    """

    def __init__(self, hidden_size: int, *, frequencies: int = 8, width: int = 256) -> None:
        super().__init__()
        self.register_buffer(
            "scales", math.pi * 2.0 ** torch.arange(-2, frequencies - 2).float(), persistent=False
        )
        self.mlp = nn.Sequential(
            nn.Linear(4 * (2 * frequencies + 1), width), nn.GELU(), nn.Linear(width, hidden_size)
        )
        nn.init.zeros_(self.mlp[2].weight)
        nn.init.zeros_(self.mlp[2].bias)
        self.null = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, rays_BN4: Tensor, has_camera_B: Tensor) -> Tensor:
        """Embed rays.

        Args:
            rays_BN4: float rays at token centres (`CameraModel.token_rays`, raster order); any leading
                shape, (T, 4) for the tokens of a whole prompt.
            has_camera_B: bool, False where K is missing (rays are then ignored); one flag per leading
                index, or per token.

        Returns:
            (B, N, D) to be added to the visual tokens after the projector.
        """
        angles = rays_BN4.unsqueeze(-1) * self.scales
        features = torch.cat([rays_BN4.unsqueeze(-1), angles.sin(), angles.cos()], dim=-1).flatten(-2)
        embedded = self.mlp(features.to(self.mlp[0].weight.dtype))
        known = has_camera_B.reshape(has_camera_B.shape + (1,) * (embedded.ndim - has_camera_B.ndim))
        return torch.where(known, embedded, self.null.to(embedded.dtype))


class CameraDropout(nn.Module):
    """Forgets K of a share of the images while training, so that the null embedding learns (DESIGN 3.1).

    MapAnything drops between 5 and 90 % of its inputs; 0.1 to 0.5 is sensible here (facts 1.7).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"a dropout rate lies between 0 and 1, found {rate}")
        self.rate = rate

    def forward(self, has_camera_I: Tensor) -> Tensor:
        """(I,) bool, one flag per image: some True become False in training mode, never the reverse."""
        if not self.training or self.rate == 0.0:
            return has_camera_I
        return has_camera_I & (torch.rand(has_camera_I.shape, device=has_camera_I.device) >= self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
