"""Weights stored with few bits: how exact they are, and that the runtime computes with what training reads back."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.model.bundle import Bundle, open_bundle
from spatial_mllm_core.model.embedding import load_embedding
from spatial_mllm_core.model.ort_engine import OrtEngine
from spatial_mllm_training.export.graphs import LiftGraph, VisionGraph
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model import small_weights
from spatial_mllm_training.model.bundle_weights import PRECISION, read_weights, small_table
from spatial_mllm_training.model.small_weights import BITS, BLOCK, packed, unpacked
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.small_model import build_model

FLOATS = st.floats(-1e3, 1e3, width=32)


BLOCKS = st.tuples(st.integers(1, 4), st.just(BLOCK)) | st.just((8, 4, 2)) | st.just((4, 4, 2, 2))


@given(arrays(np.float32, BLOCKS, elements=FLOATS))
def test_no_block_of_weights_errs_more_than_with_its_largest_one_as_the_end_of_the_scale(values):
    stored, scale = packed(values)
    count = values.size
    assert stored.size == count * BITS // 8 and stored.dtype == np.uint8
    assert scale.size == count // BLOCK and (scale > 0).all()
    kept = unpacked(stored, scale, np.array(values.shape))
    assert kept.shape == values.shape and kept.dtype == np.float32
    blocks = values.reshape(-1, BLOCK).astype(np.float64)
    error = np.square(kept.reshape(-1, BLOCK) - blocks).sum(1)
    half_a_step = np.abs(blocks).max(1) / (2 ** (BITS - 1) - 1) / 2
    assert (error <= BLOCK * np.square(1.01 * half_a_step + 1e-6)).all()


def test_weights_on_the_steps_of_their_scale_are_kept_exactly():
    steps = np.random.default_rng(0).integers(-15, 16, (6, BLOCK))
    steps[:, 0] = 15
    values = (steps * np.float32(0.25)).astype(np.float32)
    np.testing.assert_array_equal(unpacked(*packed(values), np.array(values.shape)), values)


def test_normal_weights_lose_less_than_a_twentieth():
    """Of their spread, which eight bits a row of 192 would keep to a hundredth."""
    values = np.random.default_rng(0).normal(size=(192, 576)).astype(np.float32)
    kept = unpacked(*packed(values), np.array(values.shape))
    assert 0.02 < np.std(kept - values) < 0.05


def test_the_runtime_decodes_a_weight_as_it_is_read_back():
    values = np.random.default_rng(0).normal(size=(96, 64)).astype(np.float32)
    graph = onnx.helper.make_graph(
        small_weights.decoding("w"),
        "decoding",
        [],
        [onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, values.shape)],
        [*small_weights.tensors("w", values), *small_weights.shared_tensors()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    np.testing.assert_array_equal(found, unpacked(*packed(values), np.array(values.shape)))


def test_a_word_table_of_eight_bits_is_off_by_half_a_step(bundle):
    rows = np.random.default_rng(0).normal(size=(bundle.manifest.vocabulary, bundle.manifest.hidden))
    rows[3], rows[4] = 0.0, 100 * rows[4]
    table = rows.astype(np.float32)
    save_file(small_table(table), str(bundle.path("embedding.safetensors")))
    found = load_embedding(bundle)
    half_a_step = np.abs(table).max(axis=1, keepdims=True) / 254
    assert (np.abs(found - table) <= half_a_step * 1.001).all() and not found[3].any()


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
    assert 1e-3 < float((exact - expected).abs().mean() / exact.abs().mean()) < 0.3
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
    assert total < 1.4 * sum(v.numel() for v in read_weights(bundle).values())


def test_what_is_no_graph_is_a_sentence(bundle):
    bundle.path("lift.onnx").write_bytes(b"no graph at all")
    with pytest.raises(SpatialError, match="is not an ONNX graph"):
        read_weights(bundle)


def test_weights_as_older_bundles_stored_them_are_a_sentence(bundle):
    graph = onnx.load(str(bundle.path("lift.onnx")))
    tensor = next(t for t in graph.graph.initializer if t.name.endswith(small_weights.PACKED))
    tensor.name = tensor.name.replace(small_weights.PACKED, "_planes")
    onnx.save(graph, str(bundle.path("lift.onnx")))
    with pytest.raises(SpatialError, match="store them as earlier versions did"):
        read_weights(bundle)
