"""The objective of the heads: which terms each task has, scale, rows, and batches with nothing in them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from spatial_mllm_training.supervision import DenseMap, DenseTargets, LossConfig, dense_losses, terms
from spatial_mllm_training.supervision.scale import normalised, predicted_scale, target_scale

EXACT = LossConfig(valid_range=None)


def scene(seed=0, *, rows=(1, 2), h=12, w=14, dtype=torch.float64, metric=None):
    """Targets of `rows` images each, with holes, and unrelated positive predictions."""
    g = torch.Generator().manual_seed(seed)
    n = sum(rows)
    depth = 1 + 2 * torch.rand(n, h, w, generator=g, dtype=dtype)
    depth[:, :2] = torch.nan
    depth[:, 2, :3] = 0.0
    rays = torch.randn(n, h, w, 6, generator=g, dtype=dtype)
    rays[..., 5] += 3
    points = torch.where(depth[..., None] > 0, rays[..., :3] + depth[..., None] * rays[..., 3:], torch.nan)
    row = torch.tensor([r for r, count in enumerate(rows) for _ in range(count)])
    metric = torch.ones(len(rows), dtype=torch.bool) if metric is None else torch.tensor(metric)
    targets = DenseTargets(depth, rays, points, row, metric)

    def noisy(x):
        return torch.nan_to_num(x, nan=1.0) + 0.3 * torch.rand(x.shape, generator=g, dtype=dtype)

    def confidence():
        return 1.1 + torch.rand(n, h, w, generator=g, dtype=dtype)

    predictions = {
        "depth": DenseMap(noisy(depth)[..., None], confidence()),
        "rays": DenseMap(noisy(rays), confidence()),
        "points": DenseMap(noisy(points), confidence()),
    }
    return predictions, targets


def scaled(targets, factor):
    """The same truth in other units."""
    rays = torch.cat([targets.rays[..., :3] * factor, targets.rays[..., 3:]], dim=-1)
    return DenseTargets(targets.depth * factor, rays, targets.points * factor, targets.row, targets.is_metric)


def test_each_task_has_the_terms_of_the_paper_and_the_total_is_their_plain_sum():
    predictions, targets = scene()
    out = dense_losses(predictions, targets, EXACT)
    assert set(out) == {
        "total", "depth", "depth/l2", "depth/confidence", "depth/gradient", "rays", "rays/l2",
        "rays/confidence", "points", "points/l2", "points/confidence", "points/normal",
    }  # fmt: skip
    valid = torch.isfinite(targets.depth) & (targets.depth > 0)
    depth = (predictions["depth"].value, targets.depth[..., None], predictions["depth"].confidence, valid)
    points = (predictions["points"].value, targets.points, predictions["points"].confidence, valid)
    everywhere = torch.ones_like(valid)  # a ray needs no depth
    rays = (predictions["rays"].value, targets.rays, predictions["rays"].confidence, everywhere)
    expected = {
        "depth": sum(terms.regression_terms(*depth)) + terms.gradient_term(*depth),
        "rays": sum(terms.regression_terms(*rays)),
        "points": sum(terms.regression_terms(*points)) + terms.normal_term(*points),
    }
    for task, value in expected.items():
        assert float(out[task]) == pytest.approx(float(value), rel=1e-12)
    assert float(out["total"]) == pytest.approx(sum(map(float, expected.values())), rel=1e-12)
    only = dense_losses({"rays": predictions["rays"]}, targets, EXACT)
    assert float(only["total"]) == pytest.approx(float(expected["rays"]), rel=1e-12)


def test_motion_is_learnt_where_there_is_some_and_whether_there_is_any_everywhere():
    """A slow loop: the L2 of moved cells alone; of whether they moved half the mean over either kind."""
    predictions, targets = scene()
    g = torch.Generator().manual_seed(5)
    motion = torch.zeros_like(targets.points)
    motion[:, 5:7, 4:9] = 0.4 * torch.randn(3, 2, 5, 3, generator=g, dtype=motion.dtype)
    motion[~(targets.depth > 0)] = torch.nan
    said = DenseMap(
        0.1 * torch.randn(motion.shape, generator=g, dtype=motion.dtype), predictions["depth"].confidence
    )
    out = dense_losses({"motion": said}, dataclasses.replace(targets, motion=motion), LossConfig())
    residuals, log_losses = [], {True: [], False: []}
    for n, y, x in np.ndindex(*motion.shape[:3]):
        if torch.isfinite(motion[n, y, x]).all():
            chance = 1 - 1 / float(said.confidence[n, y, x])
            moved = float(motion[n, y, x].norm()) > 0.005
            log_losses[moved].append(-math.log(chance if moved else 1 - chance))
            if moved:
                residuals.append(float((said.value[n, y, x] - motion[n, y, x]).norm()))
    assert float(out["motion/l2"]) == pytest.approx(np.mean(residuals) / 0.2, rel=1e-9)
    log_loss = sum(map(np.mean, log_losses.values())) / 2
    assert float(out["motion/moved"]) == pytest.approx(log_loss, rel=1e-9)
    assert float(out["total"]) == pytest.approx(np.mean(residuals) / 0.2 + log_loss, rel=1e-9)
    said.value.requires_grad_()
    dense_losses({"motion": said}, dataclasses.replace(targets, motion=motion), LossConfig())[
        "total"
    ].backward()
    assert torch.isfinite(said.value.grad).all()
    assert float(dense_losses({"motion": said}, targets, LossConfig())["total"]) == 0.0  # nobody knows


def test_log_depth_is_the_same_terms_on_logarithms():
    predictions, targets = scene()
    out = dense_losses(predictions, targets, LossConfig(valid_range=None, depth="log"))
    valid = targets.depth > 0
    value = predictions["depth"].value.log()
    target = torch.where(valid, targets.depth, 1.0).log()[..., None]
    arguments = (value, target, predictions["depth"].confidence, valid)
    expected = sum(terms.regression_terms(*arguments)) + terms.gradient_term(*arguments)
    assert float(out["depth"]) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("depth", ["linear", "log"])
@pytest.mark.parametrize("mode", ["both", "target"])
def test_scale_free_truth_may_come_in_any_unit(mode, depth):
    predictions, targets = scene(metric=[False, False])
    config = LossConfig(valid_range=None, scale_free=mode, depth=depth)
    one = dense_losses(predictions, targets, config)
    other = dense_losses(predictions, scaled(targets, 37.0), config)
    for name, value in one.items():
        assert float(other[name]) == pytest.approx(float(value), rel=1e-9), name


@pytest.mark.parametrize("tasks", [("depth", "rays", "points"), ("depth",), ("depth", "rays")])
def test_in_mode_both_the_unit_of_the_prediction_does_not_count_either(tasks):
    predictions, targets = scene(metric=[False, False])
    predictions = {t: predictions[t] for t in tasks}
    larger = dict(predictions)
    for task in tasks:
        value, confidence = predictions[task]
        grown = torch.cat([value[..., :3] * 5, value[..., 3:]], -1) if task == "rays" else value * 5
        larger[task] = DenseMap(grown, confidence)
    one = dense_losses(predictions, targets, EXACT)
    other = dense_losses(larger, targets, EXACT)
    assert float(other["total"]) == pytest.approx(float(one["total"]), rel=1e-9)
    target_only = LossConfig(valid_range=None, scale_free="target")
    assert (
        abs(
            float(dense_losses(larger, targets, target_only)["total"])
            - float(dense_losses(predictions, targets, target_only)["total"])
        )
        > 0.5
    )


def test_metric_rows_are_left_in_metres_beside_scale_free_ones():
    predictions, targets = scene(metric=[True, False])
    mixed = dense_losses(predictions, targets, EXACT)
    assert float(dense_losses(predictions, scaled(targets, 2.0), EXACT)["depth"]) != pytest.approx(
        float(mixed["depth"])
    )
    new_predictions, new_targets = normalised(predictions, targets)
    torch.testing.assert_close(new_targets.depth[0], targets.depth[0], equal_nan=True)
    torch.testing.assert_close(new_predictions["points"].value[0], predictions["points"].value[0])
    again = DenseTargets(
        new_targets.depth[1:], new_targets.rays[1:], new_targets.points[1:],
        torch.zeros(2, dtype=torch.int64), torch.tensor([False]),
    )  # fmt: skip
    assert float(target_scale(again)) == pytest.approx(1.0, rel=1e-12)


def test_the_scale_is_the_mean_distance_of_a_rows_valid_points():
    predictions, targets = scene(metric=[False, False])
    expected, ours = [], []
    for images in ([0], [1, 2]):
        distances, predicted = [], []
        for i in images:
            for r in range(12):
                for q in range(14):
                    if torch.isfinite(targets.points[i, r, q]).all():
                        distances.append(float(targets.points[i, r, q].square().sum().sqrt()))
                        predicted.append(float(predictions["points"].value[i, r, q].square().sum().sqrt()))
        expected.append(sum(distances) / len(distances))
        ours.append(sum(predicted) / len(predicted))
    scale = target_scale(targets)
    assert scale.tolist() == pytest.approx(expected, rel=1e-12)
    assert predicted_scale(predictions, targets, scale).tolist() == pytest.approx(ours, rel=1e-12)


def test_gradients_of_the_whole_objective_are_those_of_finite_differences():
    predictions, targets = scene(rows=(1,), h=5, w=5, metric=[False])
    config = LossConfig(valid_range=None, fewest_valid=1)
    inputs = [x.detach().clone().requires_grad_() for p in predictions.values() for x in p]

    def total(*x):
        maps = {t: DenseMap(*x[2 * i : 2 * i + 2]) for i, t in enumerate(predictions)}
        return dense_losses(maps, targets, config)["total"]

    assert torch.autograd.gradcheck(total, inputs)


@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("valid_range", [None, 0.98])
def test_a_batch_without_truth_costs_nothing_and_teaches_nothing(metric, valid_range):
    predictions, targets = scene(dtype=torch.float32, metric=[metric, metric])
    nothing = DenseTargets(
        torch.full_like(targets.depth, torch.nan), torch.full_like(targets.rays, torch.nan),
        torch.full_like(targets.points, torch.nan), targets.row, targets.is_metric,
    )  # fmt: skip
    leaves = {t: DenseMap(*(x.requires_grad_() for x in p)) for t, p in predictions.items()}
    out = dense_losses(leaves, nothing, LossConfig(valid_range=valid_range))
    assert all(float(v.detach()) == 0 for v in out.values())
    out["total"].backward()
    for p in leaves.values():
        for x in p:
            assert x.grad is None or (x.grad == 0).all()


def test_fewer_than_the_fewest_valid_cells_count_as_none():
    predictions, targets = scene()
    few = torch.where(torch.arange(12 * 14).reshape(12, 14) < 12 * 14 - 99 // 3, torch.nan, targets.depth)
    targets = DenseTargets(few, targets.rays, targets.points, targets.row, targets.is_metric)
    assert int((few > 0).sum()) == 99
    assert float(dense_losses(predictions, targets, EXACT)["depth"]) == 0
    assert float(dense_losses(predictions, targets, LossConfig(fewest_valid=99))["depth"]) != 0


def test_nan_zero_and_infinite_depth_are_left_out():
    predictions, targets = scene()
    clean = dense_losses(predictions, targets, EXACT)
    worse = targets.depth.clone()
    worse[torch.isnan(worse)] = -1.0
    worse[worse == 0] = torch.inf
    bad = DenseTargets(worse, targets.rays, targets.points, targets.row, targets.is_metric)
    assert float(dense_losses(predictions, bad, EXACT)["depth"]) == pytest.approx(
        float(clean["depth"]), rel=1e-12
    )


def test_a_wrong_option_is_named():
    with pytest.raises(ValueError, match="linear"):
        LossConfig(depth="inverse")
    with pytest.raises(ValueError, match="quantile"):
        LossConfig(valid_range=1.5)
    predictions, targets = scene()
    with pytest.raises(ValueError, match="both, target"):
        dense_losses(predictions, targets, LossConfig(scale_free="mine"))
