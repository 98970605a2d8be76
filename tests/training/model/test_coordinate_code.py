"""A token's place is told in the code of the numbers that name it, in the model and in its exported graph."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch

from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_training.export.graphs import VisionGraph
from spatial_mllm_training.export.onnx_files import export_graphs
from spatial_mllm_training.model.coordinate_code import CoordinateCode
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.small_model import build_model

HIDDEN = 64


@pytest.mark.parametrize("grid", [(6, 8), (3, 11)])
def test_the_likest_number_is_the_coordinate_of_the_tokens_centre(grid):
    rows = CoordinateCode(HIDDEN, 2.0)(*grid, torch.zeros(())).numpy()
    numbers = sinusoids(np.arange(1000.0), HIDDEN, 1.0)
    every_other = np.arange(HIDDEN) % (HIDDEN // 2) % 2 == 0
    for index, row in enumerate(rows):
        y, x = divmod(index, grid[1])
        for mask, place, count in ((every_other, x, grid[1]), (~every_other, y, grid[0])):
            likest = int((numbers[:, mask] @ row[mask]).argmax())
            assert abs(likest - 1000 * (place + 0.5) / count) <= 1


@torch.no_grad()
def test_it_is_added_to_images_and_to_the_exported_graph(tokenizer, tmp_path):
    config = dataclasses.replace(RECIPES["smoke"]().model, coordinate_code=2.0)
    torch.manual_seed(0)
    model = build_model(config, tokenizer).eval()
    image = torch.randint(0, 255, (1, 48, 64, 3), dtype=torch.uint8)
    rays, known = torch.randn(1, 12, 4), torch.tensor([True])
    graph = VisionGraph(model, 48, 64)
    normal = graph.normalised(image)
    told = model.embed_images(normal, rays, known)
    torch.testing.assert_close(graph(image, rays, known), told, rtol=0, atol=1e-5)
    export_graphs(model, tmp_path, height=48, width=64, small=False)
    session = onnxruntime.InferenceSession(tmp_path / "vision.onnx")
    fed = zip(session.get_inputs(), (image.numpy(), rays.numpy(), known.numpy()), strict=True)
    (found,) = session.run(None, {put.name: value for put, value in fed})
    np.testing.assert_allclose(found, told.numpy(), rtol=0, atol=1e-4)
    model.coordinate_code = None
    code = told - model.embed_images(normal, rays, known)
    torch.testing.assert_close(code[0], CoordinateCode(config.hidden, 2.0)(3, 4, code), rtol=0, atol=1e-5)


def test_nothing_of_it_is_kept_in_files(tokenizer):
    config = dataclasses.replace(RECIPES["smoke"]().model, coordinate_code=2.0)
    assert not any("coordinate" in name for name in build_model(config, tokenizer).state_dict())
