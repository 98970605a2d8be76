"""The cameras of all images of a batch of prompts, as the wrapper takes them; knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_training.model.preprocess import TokenRays


@dataclass(frozen=True)
class PromptCameras:
    """One entry per visual token, in the order in which they stand in the prompts, row after row.

    Attributes:
        rays_T4: float32 rays at token centres.
        sees_pixel_T: False at tokens that show no pixel; nothing is added there.
        image_T: index of the image of a token.
        has_camera_I: per image; False means that K is missing.
    """

    rays_T4: Tensor
    sees_pixel_T: Tensor
    image_T: Tensor
    has_camera_I: Tensor

    @classmethod
    def of(cls, images: Sequence[TokenRays]) -> PromptCameras:
        """From the rays of every image of the batch, in prompt order; sizes may differ."""
        counts = torch.tensor([len(image.rays_N4) for image in images])
        return cls(
            rays_T4=torch.from_numpy(np.concatenate([image.rays_N4 for image in images])),
            sees_pixel_T=torch.from_numpy(np.concatenate([image.sees_pixel_N for image in images])),
            image_T=torch.repeat_interleave(torch.arange(len(images)), counts),
            has_camera_I=torch.tensor([image.has_camera for image in images]),
        )

    def to(self, device: torch.device | str) -> PromptCameras:
        return PromptCameras(
            self.rays_T4.to(device),
            self.sees_pixel_T.to(device),
            self.image_T.to(device),
            self.has_camera_I.to(device),
        )
