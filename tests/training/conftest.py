"""Small models that the training tests share; skipped as a whole where torch is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

torch = pytest.importorskip(
    "torch", reason="the training tests need the 'training' extra (torch, transformers)"
)

from spatial_mllm_training.data.tokenizer import build_tokenizer  # noqa: E402
from spatial_mllm_training.model.build import build_model  # noqa: E402
from spatial_mllm_training.recipes import RECIPES  # noqa: E402


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def small_model(tokenizer):
    """A micro Qwen2.5-VL with nonzero additions, so that they show."""
    torch.manual_seed(0)
    model = build_model(RECIPES["smoke"]().model, tokenizer).eval()
    torch.nn.init.normal_(model.ray_embedding.mlp[2].weight, std=0.05)
    torch.nn.init.normal_(model.ray_embedding.null, std=0.05)
    return model


HEIGHT, WIDTH = 192, 256


def _write_scene(path, seed: int) -> None:
    """A scene of noise with a sloped floor and two bodies, one of which moves and turns."""
    rng = np.random.default_rng(seed)
    times, cameras, bodies = 3, 2, 3
    ids = np.zeros((times, cameras, HEIGHT, WIDTH), np.uint8)
    ids[:, :, 60:130, 40:120] = 1
    ids[:, :, 60:130, 150:230] = 2
    depth = np.broadcast_to(np.linspace(2500, 900, HEIGHT)[:, None], ids.shape).astype(np.uint16)
    world_from_body = np.tile(np.eye(4), (times, bodies, 1, 1))
    for t in range(times):
        world_from_body[t, 1, :3, :3] = Rotation.from_rotvec([0.0, 0.0, 0.3 * t]).as_matrix()
        world_from_body[t, 1, :3, 3] = [0.1 * t, 0.02 * t, 0.0]
    world_from_camera = np.tile(np.eye(4), (cameras, 1, 1))
    world_from_camera[:, :3, :3] = Rotation.random(cameras, random_state=seed).as_matrix()
    world_from_camera[:, :3, 3] = rng.normal(size=(cameras, 3))
    np.savez(
        path,
        rgb=rng.integers(0, 255, (times, cameras, HEIGHT, WIDTH, 3), dtype=np.uint8),
        depth_mm=depth,
        body_id=ids,
        k=np.array([[210.0, 0, 130], [0, 205.0, 92], [0, 0, 1]]),
        world_from_camera=world_from_camera,
        world_from_body=world_from_body,
    )


@pytest.fixture(scope="session")
def write_scene():
    """A function (path, seed) that writes a scene file without drawing anything."""
    return _write_scene
