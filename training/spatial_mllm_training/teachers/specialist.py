"""The specialist: a small network of ours from image and rays to depth, rays and points, without language.

It stands in as the teacher of distillation experiments where no public weights can be had. Each
image is looked at alone, so rays and points are in its own camera's frame; poses between images
come from the data. With rays as input its depth is metric; without, it is metric only for the
focal lengths it was trained on, and is given out as scale-free.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.model.ray_embedding import RayEmbedding
from spatial_mllm_training.supervision.dpt import DPTSize, position_embedding
from spatial_mllm_training.supervision.heads import PUBLISHED_TASKS, DenseMap, SpatialHeads
from spatial_mllm_training.teachers.base import TeacherOutput, View, hash_of_weights, known_poses
from spatial_mllm_training.teachers.ray_grids import rays_on_grid

FILE = "specialist.safetensors"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class SpecialistConfig:
    """Sizes; the defaults have about 5M parameters.

    Attributes:
        height, width: of the image it sees, px, multiples of `patch`; any image is resized to it.
        uses_rays: adds a ray embedding to every token.
        tasks: what it learns, of depth, rays, points; depth is always among them.
    """

    height: int = 144
    width: int = 192
    patch: int = 16
    hidden: int = 192
    layers: int = 6
    heads: int = 4
    features: int = 48
    uses_rays: bool = True
    tasks: tuple[str, ...] = tuple(PUBLISHED_TASKS)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))  # a list, from JSON
        if "depth" not in self.tasks:
            raise ValueError(
                f"a specialist learns depth at least, found {', '.join(self.tasks) or 'nothing'}"
            )
        if self.height % self.patch or self.width % self.patch or self.layers < 4:
            raise ValueError(
                "height and width must be multiples of patch, and there must be at least 4 layers"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens."""
        return self.height // self.patch, self.width // self.patch

    @property
    def map_size(self) -> tuple[int, int]:
        """(rows, columns) of the dense maps."""
        return 8 * self.grid[0], 8 * self.grid[1]


class Specialist(nn.Module):
    """A plain ViT with the same heads as the language model; four evenly spaced layers are tapped."""

    def __init__(self, config: SpecialistConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Conv2d(3, config.hidden, config.patch, stride=config.patch)
        self.rays = RayEmbedding(config.hidden) if config.uses_rays else None
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.hidden,
                config.heads,
                4 * config.hidden,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )
        size = DPTSize(channels=(config.features,) * 4, features=config.features)
        self.dense = SpatialHeads(config.hidden, tasks=config.tasks, size=size)
        self.taps = tuple(round(config.layers * (i + 1) / 4) - 1 for i in range(4))
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(
        self, images_B3HW: Tensor, rays_BN4: Tensor, has_camera_B: Tensor
    ) -> tuple[dict[str, DenseMap], Tensor]:
        """(maps of its tasks, last-layer features (B, gh, gw, hidden)).

        Args:
            images_B3HW: RGB of any size, 0 to 255.
            rays_BN4: at the tokens of the specialist's own grid.
        """
        taps = self.tapped(images_B3HW, rays_BN4, has_camera_B)
        return self.dense(taps, *self.config.grid), taps[-1].unflatten(1, self.config.grid)

    def tapped(self, images_B3HW: Tensor, rays_BN4: Tensor, has_camera_B: Tensor) -> list[Tensor]:
        """Four (B, N, hidden), the last layer's last: all that a distillation needs, without the heads."""
        grid_h, grid_w = self.config.grid
        images = self.resized(images_B3HW).float() / 255.0
        x = self.patches((images - self.mean) / self.std)
        x = x + position_embedding(self.config.hidden, grid_h, grid_w).to(x)
        x = x.flatten(2).transpose(1, 2)
        if self.rays is not None:
            x = x + self.rays(rays_BN4, has_camera_B).to(x.dtype)
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            taps += [x] * self.taps.count(i)
        return taps

    def resized(self, images_B3HW: Tensor) -> Tensor:
        """Images at the size that the specialist sees; smoothed where that is smaller."""
        size = (self.config.height, self.config.width)
        if tuple(images_B3HW.shape[-2:]) == size:
            return images_B3HW
        return F.interpolate(images_B3HW.float(), size, mode="bilinear", antialias=True)

    def inputs(self, views: Sequence[View]) -> tuple[Tensor, Tensor, Tensor]:
        """(images, rays, has_camera) of views, as `forward` takes them."""
        grid_h, grid_w = self.config.grid
        images = [self.resized(torch.from_numpy(v.image).permute(2, 0, 1)[None]) for v in views]
        rays = np.zeros((len(views), grid_h, grid_w, 4), np.float32)
        for i, view in enumerate(views):
            if view.camera is not None:
                rays[i] = view.camera.token_rays(grid_w, grid_h)
        return (
            torch.cat(images),
            torch.from_numpy(rays).flatten(1, 2),
            torch.tensor([v.camera is not None for v in views]),
        )

    @torch.no_grad()
    def expect(self, depth_m: float) -> None:
        """Let an untrained depth head begin around this depth; what a bias learns slowly is known beforehand."""
        self.dense.decoders["depth"].out[-1].bias[0] = math.log(depth_m)

    def save(self, path: Path) -> None:
        """Write weights and configuration as one safetensors file, whole or not at all."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        write_atomically(
            path, save(tensors, metadata={"specialist": json.dumps(asdict(self.config))}), replace=True
        )

    @staticmethod
    def load(path: Path) -> Specialist:
        """Read what `save` wrote, from the file or from a folder that holds it under `FILE`.

        Raises:
            SpatialError: MODEL_MISSING, MODEL_SIGNATURE for a file of another kind or a torn one.
        """
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise SpatialError(
                ErrorCode.MODEL_MISSING,
                f"there is no specialist at '{path}'; train one with 'python -m spatial_mllm_training.train_teacher'",
            )
        try:
            with safe_open(str(path), framework="pt") as file:
                config = SpecialistConfig(**json.loads((file.metadata() or {})["specialist"]))
            model = Specialist(config)
            model.load_state_dict(load_file(str(path)))
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE, f"'{path}' does not hold a specialist's weights ({error})"
            ) from None
        return model


class SpecialistTeacher:
    """A trained specialist behind the teachers' seam."""

    name = "specialist"
    version = "2"

    def __init__(self, model: Specialist, device: str = "cpu") -> None:
        self._model = model.to(device).eval()
        self._device = device

    @staticmethod
    def load(path: Path, device: str = "cpu") -> SpecialistTeacher:
        return SpecialistTeacher(Specialist.load(path), device)

    def weights_hash(self) -> str:
        return hash_of_weights(self._model)

    @property
    def needs_camera(self) -> bool:
        return self._model.config.uses_rays

    @torch.no_grad()
    def batch_features(
        self, pixels_BHW3: Tensor, rays_BN4: Tensor, has_camera_B: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """((B, gh, gw, hidden) last-layer features of images of one size, (B,) bool where they mean something).

        They mean nothing where it needs a camera and is told none, or none that it can be told on its own grid.

        Args:
            pixels_BHW3: uint8 RGB.
            rays_BN4: at the tokens of `grid` (rows, columns), which covers each image evenly.
        """
        own = self._model.config.grid
        rays, is_right = rays_on_grid(rays_BN4, grid, own)
        features = self._model.tapped(pixels_BHW3.permute(0, 3, 1, 2), rays, has_camera_B)[-1]
        knows = has_camera_B & is_right if self.needs_camera else torch.ones_like(has_camera_B)
        return features.unflatten(1, own), knows

    @torch.no_grad()
    def predict(self, views: Sequence[View]) -> TeacherOutput:
        maps, features = self._model(*(x.to(self._device) for x in self._model.inputs(views)))
        depth, confidence = (x.cpu().numpy() for x in maps["depth"])
        height, width = self._model.config.map_size
        cameras = tuple(None if v.camera is None else v.camera.resized(width, height) for v in views)
        is_metric = self._model.config.uses_rays and None not in cameras
        return TeacherOutput(
            depth=tuple(depth[..., 0]),
            cameras=cameras,
            # recorded poses are in metres and fit only a depth in metres
            first_from_camera=known_poses(views) if is_metric else None,
            confidence=tuple(confidence),
            features=tuple(features.float().cpu().numpy()),
            is_metric=is_metric,
        )
