"""The probe's loss against a loop over pixels, its depth against its bins, its learning rate."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from spatial_mllm_training.probe.head import DepthProbe, probe_loss, rate_share


def slow_loss(predicted, true):
    """10 sqrt(mean g^2 - 0.85 mean(g)^2) + 0.5 sum over strides of |differences two apart| per valid pixel."""
    batch, height, width = true.shape
    g = {}
    for b in range(batch):
        for v in range(height):
            for u in range(width):
                if true[b, v, u] > 0:
                    g[b, v, u] = math.log(predicted[b, v, u] + 0.001) - math.log(true[b, v, u] + 0.001)
    n = len(g)
    sig = math.sqrt(sum(x * x for x in g.values()) / n - 0.85 * (sum(g.values()) / n) ** 2)
    gradient = 0.0
    for stride in (1, 2, 4, 6):
        kept = {k: x for k, x in g.items() if k[1] % stride == 0 and k[2] % stride == 0}
        total = 0.0
        for (b, v, u), x in kept.items():
            for other in ((b, v + 2 * stride, u), (b, v, u + 2 * stride)):
                if other in kept:
                    total += abs(x - kept[other])
        gradient += total / max(1, len(kept))
    return 10 * sig + 0.5 * gradient


def test_loss_equals_the_loop_and_its_gradient_the_differences():
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 5, (2, 17, 14))
    true[rng.random(true.shape) < 0.25] = 0
    predicted = rng.uniform(0.5, 5, true.shape)
    t, p = torch.from_numpy(true), torch.from_numpy(predicted).requires_grad_()
    assert probe_loss(p, t).item() == pytest.approx(slow_loss(predicted, true), rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: probe_loss(x, t), (p,), eps=1e-7, atol=1e-4)


def test_loss_looks_at_no_pixel_without_truth_and_forgives_most_of_a_common_scale():
    true = torch.rand(1, 12, 12, dtype=torch.float64) + 1
    true[0, 3] = 0
    other = true * 1.5
    changed = other.clone()
    changed[0, 3] = 9.0
    assert float(probe_loss(other, true)) == float(probe_loss(changed, true))
    assert float(probe_loss(other, true)) == pytest.approx(10 * math.sqrt(0.15) * math.log(1.5), rel=0.01)


def test_depth_lies_between_the_bins_and_starts_far_from_both_ends():
    torch.manual_seed(0)
    probe = DepthProbe(16, hidden=8, bins=32, min_m=0.5, max_m=4.0)
    depth = probe(torch.randn(4, 2, 3 * 5, 16) * 10, 3, 5)
    assert depth.shape == (2, 24, 40)
    assert depth.min().item() > 0.5
    assert depth.max().item() < 4.0


def test_every_tap_and_every_token_reaches_the_depth():
    torch.manual_seed(0)
    probe = DepthProbe(16, hidden=8, bins=32)
    taps = torch.randn(4, 1, 12, 16, requires_grad=True)
    probe(taps, 3, 4).sum().backward()
    assert (taps.grad.abs().sum(-1) > 0).all()


def test_a_token_moves_the_depth_where_it_stands():
    torch.manual_seed(0)
    probe = DepthProbe(16, hidden=8, bins=32)
    taps = torch.randn(4, 1, 8 * 12, 16)
    changed = taps.clone()
    changed[0, 0, 2 * 12 + 9] += 3  # row 2, column 9
    difference = (probe(taps, 8, 12) - probe(changed, 8, 12)).abs()[0]
    row, column = np.unravel_index(int(difference.argmax()), difference.shape)
    assert (row // 8, column // 8) == pytest.approx((2, 9), abs=1)


def test_rate_rises_and_falls_to_nothing():
    shares = [rate_share(i, 100, 15) for i in range(100)]
    assert shares[0] == pytest.approx(1 / 16)
    assert all(a < b for a, b in pairwise(shares[:16]))
    assert max(shares) == 1
    assert all(a > b for a, b in pairwise(shares[15:]))
    assert shares[-1] < 0.001
