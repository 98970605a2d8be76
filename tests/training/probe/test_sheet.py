"""The sheet: every tile at its place, one scale for all depths, and what is said above a row."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spatial_mllm_core.evaluation.colours import confidence_scale
from spatial_mllm_training.probe.sheet import (
    COLUMNS,
    TILE_WIDTH,
    caption,
    error_m,
    layout_of,
    png,
    scales_of,
    sheet,
)


def test_every_tile_shows_its_picture_at_its_place(lifted_pair):
    paper, layout = sheet(lifted_pair, "title"), layout_of(lifted_pair)
    assert paper.shape == (layout.height, layout.width, 3)
    depth, error = scales_of(lifted_pair)
    for row, one in enumerate(lifted_pair):
        true = np.where(one.image.true_m > 0, one.image.true_m, np.nan)
        pictures = (
            None,
            depth.paint(one.depth_m),
            depth.paint(true),
            error.paint(error_m(one)),
            confidence_scale().paint(one.confidence),
        )
        for column, picture in enumerate(pictures):
            rows, columns = layout.tile(row, column)
            tile = paper[rows, columns]
            h, w = one.depth_m.shape
            assert tile.shape == (round(TILE_WIDTH * h / w), TILE_WIDTH, 3)
            if picture is not None:
                v = ((np.arange(tile.shape[0]) + 0.5) * h / tile.shape[0]).astype(int)
                u = ((np.arange(TILE_WIDTH) + 0.5) * w / TILE_WIDTH).astype(int)
                assert np.array_equal(tile, picture[v[:, None], u]), COLUMNS[column]
            # around a tile there is paper, save for the caption above
            assert (paper[rows, columns.stop : columns.stop + 2] == 255).all()
            assert (paper[rows.stop : rows.stop + 2, columns] == 255).all()


def test_tiles_do_not_overlap(lifted_pair):
    layout = layout_of(lifted_pair * 3)
    covered = np.zeros((layout.height, layout.width), int)
    for row in range(6):
        for column in range(len(COLUMNS)):
            covered[layout.tile(row, column)] += 1
    assert covered.max() == 1
    assert not covered[layout.legend_top :].any()


def test_the_scale_is_shared_and_its_bar_stands_below(lifted_pair):
    depth, error = scales_of(lifted_pair)
    values = np.concatenate([one.depth_m.ravel() for one in lifted_pair])
    assert depth.low <= np.percentile(values, 2)
    assert depth.high >= np.percentile(lifted_pair[0].image.true_m, 98)
    assert error.low == 0
    assert error.high >= np.nanpercentile(error_m(lifted_pair[0]), 98)
    paper, layout = sheet(lifted_pair, "title"), layout_of(lifted_pair)
    below = paper[layout.legend_top :].reshape(-1, 3)
    colours = {tuple(c) for c in below.tolist()}
    for scale in (depth, error, confidence_scale()):
        shown = sum(tuple(c) in colours for c in scale.colours.tolist())
        assert shown > 200


def test_captions_say_the_figures_or_that_there_is_no_truth(lifted_pair):
    assert caption(lifted_pair[0]).startswith("room  f0   RMSE 0.2")
    assert "AbsRel 0.09" in caption(lifted_pair[0])
    assert caption(lifted_pair[1]) == "room  f1   no true depth"


def test_png_opens_and_is_the_sheet(lifted_pair):
    paper = sheet(lifted_pair, "Küche")
    back = cv2.imdecode(np.frombuffer(png(paper), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(back[:, :, ::-1], paper)


def test_a_sheet_without_any_truth_or_image(lifted_pair):
    assert sheet(lifted_pair[1:], "no truth").ndim == 3
    with pytest.raises(ValueError, match="at least one image"):
        sheet([], "none")
