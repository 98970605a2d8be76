"""Every loss term equals its formula written as loops, has right gradients and ignores what is not valid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_mllm_training.supervision import terms

ALPHA = 0.2


def maps(seed=0, *, n=2, h=9, w=11, channels=3, invalid=0.15, dtype=torch.float64):
    """Random prediction, target, confidence (> 1) and validity; NaN in the target where not valid."""
    g = torch.Generator().manual_seed(seed)
    prediction = torch.randn(n, h, w, channels, generator=g, dtype=dtype)
    target = prediction + 0.3 * torch.randn(n, h, w, channels, generator=g, dtype=dtype)
    confidence = 1.2 + torch.rand(n, h, w, generator=g, dtype=dtype)
    valid = torch.rand(n, h, w, generator=g) >= invalid
    target[~valid] = torch.nan
    return prediction, target, confidence, valid


def surfaces(seed=0, *, dtype=torch.float64, **kwargs):
    """Point maps: bumpy planes, so that normals differ but exist."""
    prediction, _, confidence, valid = maps(seed, dtype=dtype, **kwargs)
    n, h, w, _ = prediction.shape
    v, u = torch.meshgrid(torch.arange(h, dtype=dtype), torch.arange(w, dtype=dtype), indexing="ij")
    plane = torch.stack([u, v, 0.2 * u - 0.1 * v + 5], dim=-1).expand(n, h, w, 3)
    target = plane + 0.2 * maps(seed + 1, dtype=dtype, **kwargs)[0]
    target[~valid] = torch.nan
    return plane + 0.2 * prediction, target, confidence, valid


def slow_regression(m, y, c, valid, valid_range=None):
    plain, weighted = [], []
    for at in zip(*np.nonzero(valid.numpy()), strict=True):
        r = float(np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(m[at], y[at], strict=True))))
        plain.append(r)
        weighted.append(r * float(c[at]) - ALPHA * np.log(float(c[at])))

    def mean(values):
        if valid_range is not None and len(values) > 1000:
            values = [min(v, 100.0) for v in values]
            threshold = sorted(values)[round(valid_range * (len(values) - 1))]
            below = [v for v in values if v < threshold]
            values = below if len(below) > 1000 else values
        return sum(values) / len(values)

    return mean(plain), mean(weighted)


def slow_gradient(m, y, c, valid):
    total = 0.0
    for k in range(4):
        s = 2**k
        n, h, w, channels = m.shape
        rows, columns = list(range(0, h, s)), list(range(0, w, s))
        cells = sum(bool(valid[i, a, b]) for i in range(n) for a in rows for b in columns) * channels
        scale = 0.0
        for i in range(n):
            for r, row in enumerate(rows):
                for q, column in enumerate(columns):
                    for before in ((r - 1, q), (r, q - 1)):
                        if min(before) < 0:
                            continue
                        here, there = (i, row, column), (i, rows[before[0]], columns[before[1]])
                        if not (valid[here] and valid[there]):
                            continue
                        for channel in range(channels):
                            step = abs(float((m[here] - y[here])[channel] - (m[there] - y[there])[channel]))
                            scale += min(step, 100.0) * float(c[here]) - ALPHA * np.log(float(c[here]))
        total += scale / max(cells, 1)
    return total / 4


def slow_normal(m, y, c, valid):
    total = 0.0
    for k in range(3):
        s = 2**k
        p, t, conf, v = (x[:, ::s, ::s].numpy() for x in (m, y, c, valid))
        n, h, w = v.shape
        losses = []
        for i in range(n):
            for r in range(h):
                for q in range(w):
                    around = [(r - 1, q), (r, q - 1), (r + 1, q), (r, q + 1)]
                    for a, b in zip(around, around[1:] + around[:1], strict=True):
                        inside = all(0 <= x[0] < h and 0 <= x[1] < w for x in (a, b))
                        if not inside or not (v[i, r, q] and v[(i, *a)] and v[(i, *b)]):
                            continue
                        ours, truth = (
                            np.cross(x[(i, *a)] - x[i, r, q], x[(i, *b)] - x[i, r, q]) for x in (p, t)
                        )
                        cosine = ours @ truth / np.linalg.norm(ours) / np.linalg.norm(truth)
                        losses.append((1 - cosine) * conf[i, r, q] - ALPHA * np.log(conf[i, r, q]))
        total += np.mean(losses) if len(losses) >= 10 else 0.0
    return total / 3


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_regression_equals_the_formula(channels):
    m, y, c, valid = maps(channels=channels)
    plain, weighted = terms.regression_terms(m, y, c, valid, alpha=ALPHA)
    assert (float(plain), float(weighted)) == pytest.approx(slow_regression(m, y, c, valid), rel=1e-12)


def test_regression_drops_outliers_above_the_quantile_only_where_many_remain():
    m, y, c, valid = maps(n=3, h=24, w=24, channels=1)
    y[0, :2, :3] = 500.0
    valid[0, :2, :3] = True
    got = terms.regression_terms(m, y, c, valid, alpha=ALPHA, valid_range=0.98)
    expected = slow_regression(m, y, c, valid, 0.98)
    assert tuple(map(float, got)) == pytest.approx(expected, rel=1e-12)
    assert expected[0] < 0.5 * slow_regression(m, y, c, valid)[0]
    few = tuple(x[:1] for x in (m, y, c, valid))
    unfiltered = terms.regression_terms(*few, alpha=ALPHA, valid_range=0.98)
    assert tuple(map(float, unfiltered)) == pytest.approx(slow_regression(*few), rel=1e-12)


@pytest.mark.parametrize("size", [(9, 11), (1, 7), (4, 1)])
def test_gradient_equals_the_formula(size):
    m, y, c, valid = maps(h=size[0], w=size[1], channels=1)
    y[0, 0, 0] = m[0, 0, 0] + 1e4  # above the clamp
    valid[0, 0, 0] = True
    got = terms.gradient_term(m, y, c, valid, alpha=ALPHA)
    assert float(got) == pytest.approx(slow_gradient(m, y, c, valid), rel=1e-12)


@pytest.mark.parametrize("size", [(9, 11), (3, 4)])
def test_normals_equal_the_formula(size):
    m, y, c, valid = surfaces(h=size[0], w=size[1], invalid=0.1)
    got = terms.normal_term(m, y, c, valid, alpha=ALPHA)
    assert float(got) == pytest.approx(slow_normal(m, y, c, valid), rel=1e-9)


def test_distillation_equals_the_formula():
    g = torch.Generator().manual_seed(0)
    student = torch.randn(2, 6, 5, generator=g, dtype=torch.float64)
    teacher = torch.randn(2, 4, 9, 5, generator=g, dtype=torch.float64)
    cosines = []
    for b in range(2):
        for r in range(2):
            for q in range(3):
                pooled = teacher[b, 2 * r : 2 * r + 2, 3 * q : 3 * q + 3].mean((0, 1)).numpy()
                token = student[b, 3 * r + q].numpy()
                cosines.append(token @ pooled / np.linalg.norm(token) / np.linalg.norm(pooled))
    assert float(terms.distillation_term(student, teacher, 2, 3)) == pytest.approx(-np.mean(cosines))
    only = terms.distillation_term(student, teacher, 2, 3, has_teacher_B=torch.tensor([False, True]))
    assert float(only) == pytest.approx(-np.mean(cosines[6:]))
    assert float(terms.distillation_term(student, teacher, 2, 3, has_teacher_B=torch.zeros(2).bool())) == 0


@pytest.mark.parametrize("term", ["l2", "confidence", "gradient", "normal", "distillation"])
def test_gradients_are_those_of_finite_differences(term):
    if term == "distillation":
        g = torch.Generator().manual_seed(0)
        student = torch.randn(1, 4, 3, generator=g, dtype=torch.float64, requires_grad=True)
        teacher = torch.randn(1, 4, 4, 3, generator=g, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: terms.distillation_term(x, teacher, 2, 2), (student,))
        return
    make = surfaces if term == "normal" else maps
    m, y, c, valid = make(n=1, h=5, w=6)
    functions = {
        "l2": lambda p, q: terms.regression_terms(p, y, q, valid)[0],
        "confidence": lambda p, q: terms.regression_terms(p, y, q, valid)[1],
        "gradient": lambda p, q: terms.gradient_term(p, y, q, valid),
        "normal": lambda p, q: terms.normal_term(p, y, q, valid),
    }
    assert torch.autograd.gradcheck(functions[term], (m.requires_grad_(), c.requires_grad_()))


def test_a_constant_offset_costs_nothing_in_the_gradient_term():
    m, y, _, valid = maps(channels=1)
    ones = torch.ones(m.shape[:3], dtype=torch.float64)
    moved = torch.where(valid[..., None], y, 0.0) + 7.0
    assert float(terms.gradient_term(moved, y, ones, valid)) == pytest.approx(0.0, abs=1e-12)
    assert float(terms.gradient_term(m, y, ones, valid)) > 0.1


def test_parallel_planes_have_equal_normals_and_a_turned_one_its_angle():
    v, u = torch.meshgrid(torch.arange(16.0), torch.arange(18.0), indexing="ij")
    plane = torch.stack([u, v, 3 + 0.5 * u], dim=-1)[None]
    flat = torch.stack([u, v, torch.full_like(u, 2.0)], dim=-1)[None]
    ones, valid = torch.ones(1, 16, 18), torch.ones(1, 16, 18, dtype=torch.bool)
    assert float(terms.normal_term(2.5 * plane + 4, plane, ones, valid)) == pytest.approx(0.0, abs=1e-6)
    expected = 1 - np.cos(np.arctan(0.5))
    assert float(terms.normal_term(flat, plane, ones, valid)) == pytest.approx(expected, rel=1e-5)


def test_what_is_not_valid_changes_nothing_and_gets_no_gradient():
    for make, function in (
        (maps, lambda *a: sum(terms.regression_terms(*a))),
        (maps, terms.gradient_term),
        (surfaces, terms.normal_term),
    ):
        m, y, c, valid = make(dtype=torch.float32)
        clean = function(m, y, c, valid)
        m[~valid], c[~valid] = torch.inf, torch.nan
        m.requires_grad_()
        c.requires_grad_()
        loss = function(m, y, c, valid)
        assert torch.equal(loss, clean)
        loss.backward()
        for grad in (m.grad, c.grad):
            assert torch.isfinite(grad).all()
            assert (grad[~valid] == 0).all()
            assert (grad[valid] != 0).any()


def test_a_truth_without_normals_is_left_out():
    m, y, c, valid = surfaces(invalid=0.0)
    doubled = y.repeat_interleave(2, 1)[:, : y.shape[1]]  # the same row twice: vertical edges vanish
    loss = terms.normal_term(m.requires_grad_(), doubled, c, valid)
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(m.grad).all()


def test_a_collapsed_prediction_has_bounded_gradients():
    _, y, c, valid = surfaces(dtype=torch.float32)
    for spread in (0.0, 1e-6, 1e-4, 1e-2):
        g = torch.Generator().manual_seed(1)
        m = (1 + spread * torch.randn(y.shape, generator=g)).requires_grad_()
        terms.normal_term(m, y, c, valid).backward()
        assert torch.isfinite(m.grad).all()
        assert m.grad.abs().max() < 1e3


def test_autocast_does_not_lower_the_precision():
    m, y, c, valid = surfaces(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = terms.normal_term(m, y, c, valid), *terms.regression_terms(m, y, c, valid)
    exact = terms.normal_term(m, y, c, valid), *terms.regression_terms(m, y, c, valid)
    for a, b in zip(lowered, exact, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
