"""Features of cells and the loss that teaches them, against the formula written slowly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from spatial_mllm_training.model.matcher import MOVED_WEIGHT, Matcher, MatcherSize, cell_of, matching_loss

SMALL = MatcherSize(stem=8, channels=16, dilations=(1, 2), features=8)


def slow_loss(first, later, matches, rows, columns):
    """Term by term, in float64."""
    total = weights = 0.0
    for image in range(len(first)):
        logits = first[image].astype(np.float64) @ later[image].T.astype(np.float64)
        for cell, (x, y, moved) in enumerate(matches[image]):
            if not np.isfinite([x, y]).all():
                continue
            there = min(int(y * rows), rows - 1) * columns + min(int(x * columns), columns - 1)
            forth = log_softmax(logits[cell])[there]
            back = log_softmax(logits[:, there])[cell]
            weight = MOVED_WEIGHT if moved else 1.0
            total -= weight * (forth + back / 2)
            weights += weight
    return total / weights


def example(seed, rows=3, columns=4):
    rng = np.random.default_rng(seed)
    first, later = rng.normal(size=(2, 2, rows * columns, 5))
    matches = rng.uniform(0, 1, (2, rows * columns, 3))
    matches[..., 2] = rng.random((2, rows * columns)) < 0.3
    matches[rng.random((2, rows * columns)) < 0.4, :2] = np.nan
    matches[0, 0, :2] = 1.0  # the far border belongs to the last cell
    return first, later, matches


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_the_formula(seed):
    first, later, matches = example(seed)
    found = matching_loss(*map(torch.from_numpy, (first, later, matches)), (3, 4))
    assert float(found) == pytest.approx(slow_loss(first, later, matches, 3, 4), rel=1e-9)


def test_its_gradients_are_right():
    first, later, matches = map(torch.from_numpy, example(0))
    assert torch.autograd.gradcheck(
        lambda a, b: matching_loss(a, b, matches, (3, 4)), (first.requires_grad_(), later.requires_grad_())
    )


def test_nothing_that_is_seen_again_is_no_loss():
    first, later, matches = map(torch.from_numpy, example(0))
    matches[..., :2] = torch.nan
    loss = matching_loss(first.requires_grad_(), later, matches, (3, 4))
    loss.backward()
    assert float(loss) == 0.0
    assert not first.grad.any()


def test_a_place_lies_in_one_cell_of_the_raster():
    x, y = torch.tensor([0.0, 0.49, 0.51, 1.0]), torch.tensor([0.0, 0.3, 0.4, 1.0])
    assert cell_of(x, y, 3, 2).tolist() == [0, 0, 3, 5]


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_an_image_has_a_feature_for_every_cell(stride):
    size = MatcherSize(stride=stride, stem=8, channels=16, dilations=(1,), features=8)
    rows, columns = size.grid(32, 48)
    assert (rows, columns) == (32 // stride, 48 // stride)
    features = Matcher(size)(torch.randn(2, 3, 32, 48))
    assert features.shape == (2, rows * columns, 8)
    lengths = features.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 15.0**0.5))


def test_it_learns_which_cells_are_the_same():
    """Of images of noise and their shifts by two cells: from chance to nearly all within 40 steps."""
    torch.manual_seed(0)
    model = Matcher(SMALL)
    rows, columns = SMALL.grid(32, 48)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([(x - 2 + 0.5) / columns, (y + 0.5) / rows, torch.zeros_like(x)], dim=-1)
    places[:, :2, :2] = torch.nan
    matches = places.reshape(1, -1, 3).expand(4, -1, -1)

    def shown():
        image = torch.nn.functional.interpolate(torch.randn(4, 3, 16, 24), scale_factor=2)
        return image, torch.roll(image, -8, dims=3)

    def share():
        with torch.no_grad():
            first, later = map(model, shown())
        best = (first @ later.transpose(1, 2)).argmax(-1)
        seen = matches.isfinite().all(-1)
        return float((best[seen] == cell_of(*matches[seen][:, :2].T, rows, columns)).float().mean())

    before = share()
    for _ in range(40):
        loss = matching_loss(*map(model, shown()), matches, (rows, columns))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.8
    assert share() > 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"stride": 3}, "power of 2"), ({"stride": 1}, "power of 2"), ({"channels": 20}, "multiples of 8")],
)
def test_sizes_that_cannot_be_are_said(changes, words):
    with pytest.raises(ValueError, match=words):
        MatcherSize(**changes)
