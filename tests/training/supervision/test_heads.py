"""The heads: shapes on any grid, activations, decoupling, sizes, export, and that they can learn."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from spatial_mllm_training.supervision import LossConfig, SpatialHeads, dense_losses, row_targets, stack_rows
from spatial_mllm_training.supervision.dpt import SMALL_SIZE, VGGT_SIZE, DPTSize, position_embedding
from spatial_mllm_training.supervision.heads import FeatureProjector, activate, exp_activation, inv_log

TINY = DPTSize(channels=(8, 8, 12, 16), features=8)


def taps(batch, grid, width=24, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, grid[0] * grid[1], width, generator=g) for _ in range(4)]


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (9, 12), (5, 2)])
@pytest.mark.parametrize("upsampling", [8, 14])
def test_any_grid_gives_maps_of_its_size(grid, upsampling):
    heads = SpatialHeads(24, size=DPTSize((8, 8, 12, 16), 8, upsampling=upsampling))
    out = heads(taps(2, grid), *grid)
    assert list(out) == ["depth", "rays", "points"]
    for task, channels in (("depth", 1), ("rays", 6), ("points", 3)):
        assert out[task].value.shape == (2, upsampling * grid[0], upsampling * grid[1], channels)
        assert out[task].confidence.shape == out[task].value.shape[:3]
        assert (out[task].confidence > 1).all()
    assert (out["depth"].value > 0).all()


def test_images_do_not_see_each_other():
    heads = SpatialHeads(24, size=TINY).eval()
    both = taps(2, (3, 4))
    alone = [t[1:] for t in both]
    torch.testing.assert_close(
        heads(both, 3, 4)["points"].value[1:], heads(alone, 3, 4)["points"].value, atol=1e-5, rtol=1e-5
    )


def test_heads_are_decoupled_and_can_be_left_out():
    heads = SpatialHeads(24, size=TINY)
    out = heads(taps(1, (3, 4)), 3, 4, tasks=["rays"])
    assert list(out) == ["rays"]
    out["rays"].value.sum().backward()
    assert all(p.grad is None for t in ("depth", "points") for p in heads.decoders[t].parameters())
    assert all(p.grad is not None for p in heads.projectors.parameters())
    with pytest.raises(ValueError, match="flow"):
        SpatialHeads(24, tasks=("depth", "flow"))
    with pytest.raises(ValueError, match="inv_log"):
        SpatialHeads(24, point_activation="tanh")


def test_every_parameter_is_used():
    """DistributedDataParallel stops at parameters without gradient."""
    heads = SpatialHeads(24, size=TINY)
    sum(x.sum() for dense in heads(taps(1, (3, 4)), 3, 4).values() for x in dense).backward()
    assert [name for name, p in heads.named_parameters() if p.grad is None] == []


def test_one_projector_can_serve_all_layers():
    four, one = SpatialHeads(24, size=TINY), SpatialHeads(24, size=TINY, shared_projector=True)
    count = [sum(p.numel() for p in h.projectors.parameters()) for h in (four, one)]
    assert count[0] == 4 * count[1]
    out = one(taps(1, (2, 2)), 2, 2)
    assert out["depth"].value.shape == (1, 16, 16, 1)


def test_activations_are_those_of_the_formula():
    y = torch.linspace(-4, 4, 17, dtype=torch.float64)
    torch.testing.assert_close(inv_log(y), torch.sign(y) * (torch.exp(y.abs()) - 1))
    torch.testing.assert_close(exp_activation(y), torch.exp(y))
    zero = torch.zeros(1, requires_grad=True)
    inv_log(zero).backward()
    assert float(zero.grad) == 1.0
    raw = torch.randn(2, 4, 3, 5)
    dense = activate(raw, inv_log)
    torch.testing.assert_close(dense.confidence, 1 + raw[:, 3].exp())
    torch.testing.assert_close(dense.value, inv_log(raw[:, :3].permute(0, 2, 3, 1)))
    wild = activate(torch.full((1, 2, 1, 1), 1e4), exp_activation)
    assert torch.isfinite(wild.value).all() and torch.isfinite(wild.confidence).all()


def test_linear_points_are_an_option():
    torch.manual_seed(0)
    bent = SpatialHeads(24, size=TINY, tasks=("points",))
    straight = SpatialHeads(24, size=TINY, tasks=("points",), point_activation="linear")
    straight.load_state_dict(bent.state_dict())
    x = taps(1, (2, 2))
    torch.testing.assert_close(
        bent(x, 2, 2)["points"].value, inv_log(straight(x, 2, 2)["points"].value), atol=1e-6, rtol=1e-5
    )


def test_a_linear_depth_is_what_its_logarithm_says_for_exp():
    torch.manual_seed(0)
    bent = SpatialHeads(24, size=TINY, tasks=("depth",))
    straight = SpatialHeads(24, size=TINY, tasks=("depth",), depth_activation="linear")
    straight.load_state_dict(bent.state_dict())
    x = taps(1, (2, 2))
    raw = straight(x, 2, 2)["depth"]
    torch.testing.assert_close(bent(x, 2, 2)["depth"].value, torch.exp(raw.value))
    assert torch.equal(bent(x, 2, 2)["depth"].confidence, raw.confidence)
    with pytest.raises(ValueError, match="'exp' or 'linear'"):
        SpatialHeads(24, depth_activation="log")


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": (8, 8, 8)},
        {"channels": (8, 8, 0, 8)},
        {"channels": (8, 8, 6, 8)},
        {"features": 1},
        {"features": 12},
        {"upsampling": 0},
    ],
)
def test_sizes_that_no_decoder_has_are_refused(wrong):
    with pytest.raises(ValueError, match=r"found DPTSize\("):
        DPTSize(**{"channels": (8, 8, 8, 8), "features": 8, **wrong})
    assert DPTSize((8, 8, 6, 8), 12, position_embedding=False).features == 12


def test_positions_differ_and_do_not_depend_on_the_resolution():
    coarse, fine = position_embedding(16, 4, 6), position_embedding(16, 8, 12)
    assert coarse.shape == (16, 4, 6)
    between = fine.reshape(16, 4, 2, 6, 2).mean((2, 4))  # a cell's centre lies between its four quarters
    assert (between - coarse).abs().max() < 0.02
    flat = coarse.flatten(1).T
    assert torch.cdist(flat, flat).add(torch.eye(24) * 9).min() > 1e-2


def test_the_large_size_has_the_parameters_of_vggts_head():
    """Counted from its published layers; ours norms before the projectors instead of here."""
    channels, f = VGGT_SIZE.channels, 256
    expected = sum(2048 * c + c for c in channels)  # 1x1 convolutions
    expected += 256 * 256 * 16 + 256 + 512 * 512 * 4 + 512 + 1024 * 1024 * 9 + 1024  # resizes
    expected += sum(c * f * 9 for c in channels)  # to equal width, without bias
    expected += 4 * (f * f + f) + 7 * 2 * (f * f * 9 + f)  # fusions: the coarsest has no skip
    expected += f * 128 * 9 + 128 + 128 * 32 * 9 + 32 + 32 * 4 + 4  # output
    with torch.device("meta"):
        heads = SpatialHeads(2048, size=VGGT_SIZE, lifted=2048, tasks=("points",))
        small = SpatialHeads(256, size=SMALL_SIZE)
    assert sum(p.numel() for p in heads.decoders["points"].parameters()) == expected
    assert sum(p.numel() for p in small.parameters()) < 3e6


def test_export_to_onnx_equals_torch(tmp_path):
    heads = SpatialHeads(24, size=TINY, tasks=("points",)).eval()

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = heads

        def forward(self, x):
            return tuple(self.heads(list(x.unbind(0)), 3, 5)["points"])

    graph = Graph().eval()
    x = torch.stack(taps(1, (3, 5)))
    path = tmp_path / "heads.onnx"
    torch.onnx.export(
        graph, (x,), str(path), dynamo=True, opset_version=18, external_data=False, verbose=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = graph(x)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-5, rtol=2e-5)


def test_autocast_leaves_the_outputs_in_full_precision():
    heads = SpatialHeads(24, size=TINY)
    with torch.autocast("cpu", torch.bfloat16):
        out = heads(taps(1, (3, 4)), 3, 4)
    assert all(x.dtype == torch.float32 for dense in out.values() for x in dense)


def test_three_heads_fit_a_scene(camera_row):
    """Sixty steps on one image bring every task's error down by half and the maps to agree."""
    torch.manual_seed(0)
    depths, cameras, poses, grid = camera_row
    targets = stack_rows([row_targets(depths, cameras, poses, grid_h=8 * grid[0], grid_w=8 * grid[1])])
    heads = SpatialHeads(24, size=DPTSize((16, 16, 16, 16), 16))
    inputs = taps(2, grid)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        losses = dense_losses(heads(inputs, *grid), targets, LossConfig(valid_range=None))
        optimizer.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimizer.step()
        history.append({k: float(v.detach()) for k, v in losses.items()})
    for task in ("depth", "rays", "points"):
        assert history[-1][f"{task}/l2"] < 0.5 * history[0][f"{task}/l2"], task
    with torch.no_grad():
        out = heads(inputs, *grid)
    agree = out["rays"].value[..., :3] + out["depth"].value * out["rays"].value[..., 3:]
    there = torch.isfinite(targets.points).all(-1)
    apart = (agree - out["points"].value).norm(dim=-1)[there].mean()
    assert apart < 0.3 * targets.points[there].norm(dim=-1).mean()


def test_the_feature_projector_has_the_teachers_width():
    assert FeatureProjector(24, 40)(torch.zeros(2, 6, 24)).shape == (2, 6, 40)
