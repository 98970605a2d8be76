"""Scenes of known depth, a run folder and small caches that the tests of probing share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="probing needs the 'training' extra (torch, transformers)")

from spatial_mllm_core.camera import CameraModel  # noqa: E402
from spatial_mllm_training.probe.cache import CELLS, USED, FeatureCache  # noqa: E402
from spatial_mllm_training.probe.errors import image_error  # noqa: E402
from spatial_mllm_training.probe.lifted import Lifted  # noqa: E402
from spatial_mllm_training.recipes import RECIPES  # noqa: E402
from spatial_mllm_training.sources import Scene, SceneFrame, SceneProblem, SceneRef  # noqa: E402
from spatial_mllm_training.sources.posed_images import Place, PosedImage  # noqa: E402
from spatial_mllm_training.training_loop import checkpoints  # noqa: E402
from spatial_mllm_training.training_loop.small_model import build_model  # noqa: E402

FIXTURES = Path(__file__).parents[2] / "fixtures"


class Slope(Scene):
    """Frames that look at a floor; frame i stands i metres to the side."""

    source = "slope"

    def __init__(
        self, name: str, count: int, *, has_depth: bool = True, broken: tuple[int, ...] = ()
    ) -> None:
        self.name, self.skipped, self.world_up = name, [], None
        self._has_depth, self._broken = has_depth, broken
        camera = CameraModel.from_fov(64, 48, hfov_rad=1.1)
        self.frames = []
        for i in range(count):
            pose = np.eye(4)
            pose[0, 3] = i
            self.frames.append(SceneFrame(f"f{i:02d}", camera, pose))

    @property
    def has_depth(self) -> bool:
        return self._has_depth

    def image(self, index: int) -> np.ndarray:
        if index in self._broken:
            raise SceneProblem(self.name, f"{index}.png", "does not open")
        return np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)

    def depth_m(self, index: int) -> np.ndarray:
        depth = np.repeat(np.linspace(4, 1, 48, dtype=np.float32)[:, None], 64, axis=1) + np.float32(
            0.1 * index
        )
        depth[:4] = np.nan
        return depth


@pytest.fixture(scope="session")
def slope_ref():
    """A function (name, count, seed, ...) -> SceneRef of such frames; seeds below 100000 are for training."""

    def make(name: str, count: int = 3, *, seed: int = 1, **options) -> SceneRef:
        return SceneRef(name, "slope", lambda: Slope(name, count, **options), (), seed)

    return make


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, tokenizer):
    """The folder of a run that was stopped after no step: micro sizes, random weights."""
    run = tmp_path_factory.mktemp("runs") / "micro"
    run.mkdir()
    config = RECIPES["smoke"]()
    torch.manual_seed(3)
    model = build_model(config.model, tokenizer)
    torch.nn.init.normal_(model.ray_embedding.mlp[2].weight, std=0.05)
    (run / "config.json").write_text(config.to_json())
    tokenizer.save(str(run / "tokenizer.json"))
    weights = {name: value.detach() for name, value in model.named_parameters()}
    checkpoints.write(
        run, checkpoints.Progress(step=7), belongs_to={}, weights=weights, average={}, optimizer={}, keep=1
    )
    return run


@pytest.fixture(scope="session")
def training_scene(tmp_path_factory):
    """A folder with one training scene: a fixture of the benchmark under a seed for training."""
    folder = tmp_path_factory.mktemp("scenes")
    with np.load(FIXTURES / "simulated" / "scene_00100126.npz") as scene:
        np.savez(folder / "scene_00000126.npz", **{**scene, "seed": np.array(126)})
    return folder


@pytest.fixture
def synthetic_cache(tmp_path):
    """A function (informative) -> (cache, training, held out) of smooth depths, with or without them in
    the features."""

    def make(*, informative: bool, count: int = 72, width: int = 24, grid: tuple[int, int] = (2, 3)):
        folder = tmp_path / ("told" if informative else "noise")
        folder.mkdir()
        places = [Place("s", f"{i:03d}", i, "train" if i < count - 24 else "benchmark") for i in range(count)]
        cache = FeatureCache(folder, places, grid, width)
        rng = np.random.default_rng(5)
        v, u = np.mgrid[: CELLS * grid[0], : CELLS * grid[1]] / (CELLS * max(grid))
        mixing = rng.normal(size=(4, 3, width))
        for i in range(count):
            a, b, c = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(2.5, 6)
            depth = c + a * u + b * v
            token = depth.reshape(grid[0], CELLS, grid[1], CELLS).mean((1, 3)).reshape(-1)
            told = np.stack([token, np.full_like(token, a), np.full_like(token, b)], axis=1)
            noise = rng.normal(size=(4, len(token), width))
            cache.taps[i] = np.einsum("nk,lkd->lnd", told, mixing) + 0.05 * noise if informative else noise
            cache.cells_m[i] = depth
            cache.cells_m[i, :3] = 0
        cache.marks[:] = USED
        return cache, cache.of_split("train"), cache.of_split("benchmark")

    return make


@pytest.fixture(scope="session")
def lifted_pair():
    """Two lifted images of different sizes; the second one has no truth."""
    pair = []
    for number, (height, width) in enumerate(((48, 64), (30, 60))):
        rng = np.random.default_rng(number)
        camera = dataclasses.replace(CameraModel.from_fov(width, height, hfov_rad=1.0), frame_id="optical")
        pose = np.eye(4)
        pose[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        pose[:3, 3] = [1, 2, 3]
        depth = rng.uniform(1, 3, (height, width)).astype(np.float32)
        true = np.zeros_like(depth) if number else depth * np.float32(1.1)
        true[:5] = 0
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        posed = PosedImage(Place("room", f"f{number}", number, "train"), image, camera, pose, true)
        confidence = rng.uniform(0, 1, depth.shape).astype(np.float32)
        pair.append(
            Lifted(posed, depth, confidence, image_error(depth, true), image_error(depth, true, matched=True))
        )
    return pair
