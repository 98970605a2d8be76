"""Weights stored with 8 bits: how exact they are, and that the runtime computes with what training reads back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.model.bundle import Bundle, open_bundle
from spatial_mllm_core.model.ort_engine import OrtEngine
from spatial_mllm_training.export.graphs import LiftGraph, VisionGraph
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model.bundle_weights import PRECISION, quantised, read_weights
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.small_model import build_model

FLOATS = st.floats(-1e3, 1e3, width=32)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=6), elements=FLOATS))
def test_no_weight_is_off_by_more_than_half_a_step_of_its_row_or_column(values):
    stored, scale = quantised(values)
    assert stored.dtype == np.int8 and scale.dtype == np.float32
    assert np.broadcast_shapes(stored.shape, scale.shape) == values.shape and scale.size in values.shape[:2]
    assert (np.abs(stored * scale - values) <= scale * 0.5001 + 1e-12).all()
    np.testing.assert_allclose(scale * 127, np.where(scale == 1, 127, np.abs(scale * 127)))


def test_the_axis_of_the_scale_is_the_one_that_errs_less():
    rows = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    rows[3] *= 100.0  # one large row, which must not coarsen the others
    for values, axis in ((rows, 0), (rows.T.copy(), 1)):
        assert quantised(values)[1].shape[axis] == values.shape[axis]


@pytest.fixture
def bundle(small_model, tokenizer, tmp_path) -> Bundle:
    folder = tmp_path / "mini"
    folder.mkdir()
    about = {"name": "mini", "version": "0", "subtasks": tasks.names(), "progress": {}, "metrics": {}}
    write_bundle(small_model, RECIPES["smoke"](), tokenizer, folder, **about)
    return open_bundle(folder)


@torch.no_grad()
def test_the_runtime_computes_with_the_weights_that_are_read_back(bundle, small_model, tokenizer):
    assert bundle.manifest.precision == PRECISION
    model = build_model(RECIPES["smoke"]().model, tokenizer).eval()
    weights = read_weights(bundle)
    names = {name for name, _ in model.named_parameters()}
    model.load_state_dict({name: weights[name] for name in names}, strict=False)
    engine, m = OrtEngine(bundle), bundle.manifest
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (m.height, m.width, 3), dtype=np.uint8)
    rays = rng.normal(size=(m.grid_h * m.grid_w, 4)).astype(np.float32)
    expected = VisionGraph(model, m.height, m.width)(
        torch.from_numpy(image)[None], torch.from_numpy(rays)[None], torch.tensor([True])
    )
    told = engine.vision(image, rays, True, image)
    np.testing.assert_allclose(told, expected[0].numpy(), atol=2e-3)
    exact = VisionGraph(small_model, m.height, m.width)(
        torch.from_numpy(image)[None], torch.from_numpy(rays)[None], torch.tensor([True])
    )
    assert 1e-4 < float((exact - expected).abs().mean() / exact.abs().mean()) < 0.05
    taps = rng.normal(size=(4, m.grid_h * m.grid_w, m.hidden)).astype(np.float32)
    depth_m, _ = LiftGraph(model, m.grid_h, m.grid_w)(torch.from_numpy(taps)[:, None])
    np.testing.assert_allclose(engine.lift(taps)[0], depth_m[0].numpy(), rtol=1e-3)


def test_every_large_tensor_is_stored_small(bundle):
    for file in ("vision.onnx", "decoder.onnx", "lift.onnx"):
        for tensor in onnx.load(str(bundle.path(file))).graph.initializer:
            count = int(np.prod(tensor.dims))
            if tensor.data_type == onnx.TensorProto.FLOAT:
                assert count < 4096, tensor.name
    total = sum(f.stat().st_size for f in bundle.folder.glob("*.onnx"))
    assert total < 1.6 * sum(v.numel() for v in read_weights(bundle).values())


def test_what_is_no_graph_is_a_sentence(bundle):
    bundle.path("lift.onnx").write_bytes(b"no graph at all")
    with pytest.raises(SpatialError, match="is not an ONNX graph"):
        read_weights(bundle)
