"""A picture for people: per row an image, its predicted depth, its true depth, error and confidence.

All depths of a sheet share one scale, all errors another; both stand below. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.evaluation.colours import (
    Scale,
    confidence_scale,
    depth_scale,
    round_ticks,
)
from spatial_mllm_training.probe.lifted import Lifted

COLUMNS = ("Image", "Predicted depth", "True depth", "Error", "Confidence")
TILE_WIDTH = 256
_MARGIN, _GAP, _HEAD, _CAPTION, _LEGEND = 16, 8, 30, 24, 64
_INK, _QUIET, _PAPER = (28, 30, 34), (105, 110, 120), 255
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BAR = 14


@dataclass(frozen=True)
class Layout:
    """Where the tiles of a sheet are, px.

    Attributes:
        heights: of the tiles of every row.
    """

    heights: tuple[int, ...]

    @property
    def width(self) -> int:
        return 2 * _MARGIN + len(COLUMNS) * TILE_WIDTH + (len(COLUMNS) - 1) * _GAP

    @property
    def height(self) -> int:
        return self._top(len(self.heights)) + _LEGEND + _MARGIN

    @property
    def legend_top(self) -> int:
        return self._top(len(self.heights)) + _GAP

    def tile(self, row: int, column: int) -> tuple[slice, slice]:
        """(rows, columns) of the pixels of a tile."""
        top = self._top(row) + _CAPTION
        left = _MARGIN + column * (TILE_WIDTH + _GAP)
        return slice(top, top + self.heights[row]), slice(left, left + TILE_WIDTH)

    def _top(self, row: int) -> int:
        return _MARGIN + _HEAD + sum(height + _CAPTION + _GAP for height in self.heights[:row])


def layout_of(lifted: Sequence[Lifted]) -> Layout:
    """Every tile as wide as the others, as high as its image asks."""
    shapes = [one.image.image_rgb.shape for one in lifted]
    return Layout(tuple(max(1, round(TILE_WIDTH * h / w)) for h, w, _ in shapes))


def scales_of(lifted: Sequence[Lifted]) -> tuple[Scale, Scale]:
    """(depth, error) in metres, one for the whole sheet; errors beyond the 98th percentile are clipped."""
    depth = depth_scale([image for one in lifted for image in (one.depth_m, one.image.true_m)])
    errors = [error_m(one) for one in lifted]
    known = np.concatenate([e[np.isfinite(e)] for e in errors])
    worst = float(np.percentile(known, 98)) if known.size else 1.0
    high = next((t for t in (1, 2, 5, 10) if t * _power(worst) >= worst), 10) * _power(worst)
    return depth, Scale(0.0, float(high), _heat())


def error_m(one: Lifted) -> NDArray[np.float32]:
    """(H, W) |predicted - true| in metres, NaN where there is no truth."""
    true_m = one.image.true_m
    return np.where(true_m > 0, np.abs(one.depth_m - true_m), np.float32(np.nan))


def sheet(lifted: Sequence[Lifted], title: str) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of the whole sheet.

    Raises:
        ValueError: there is no image.
    """
    if not lifted:
        raise ValueError("a sheet needs at least one image")
    layout = layout_of(lifted)
    depth, error = scales_of(lifted)
    paper = np.full((layout.height, layout.width, 3), _PAPER, np.uint8)
    _text(paper, title, (_MARGIN, _MARGIN + 2), 0.52, _INK)
    for column, name in enumerate(COLUMNS):
        _text(paper, name, (layout.tile(0, column)[1].start, _MARGIN + 20), 0.42, _QUIET)
    for row, one in enumerate(lifted):
        box = layout.tile(row, 0)
        _text(paper, caption(one), (box[1].start, box[0].start - 8), 0.4, _INK)
        painted = (
            one.image.image_rgb,
            depth.paint(one.depth_m),
            depth.paint(np.where(one.image.true_m > 0, one.image.true_m, np.nan)),
            error.paint(error_m(one)),
            confidence_scale().paint(one.confidence),
        )
        for column, picture in enumerate(painted):
            rows, columns = layout.tile(row, column)
            paper[rows, columns] = _resized(picture, rows.stop - rows.start, exact=column > 0)
    _legends(paper, layout, depth, error)
    return paper


def caption(one: Lifted) -> str:
    """What stands above a row."""
    words = f"{one.place.scene}  {one.place.frame}"
    if one.error is None or one.matched is None:
        return f"{words}   no true depth"
    return (
        f"{words}   RMSE {one.error.rmse_m:.2f} m   AbsRel {one.error.abs_rel:.2f}   "
        f"within 25%: {one.error.delta1:.0%}   RMSE {one.matched.rmse_m:.2f} m after scale and shift"
    )


def png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG file of an RGB picture."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    assert done
    return bytes(data.tobytes())


def _legends(paper: NDArray[np.uint8], layout: Layout, depth: Scale, error: Scale) -> None:
    first = layout.tile(0, 0)[1].start
    width = TILE_WIDTH + TILE_WIDTH // 2
    for scale, left, words in (
        (depth, first, "Depth, m: red is near"),
        (error, layout.tile(0, 3)[1].start - width // 2 - _GAP, "Error, m"),
        (confidence_scale(), layout.tile(0, 4)[1].start, "Confidence, not calibrated"),
    ):
        right = min(left + width, layout.width - _MARGIN)
        _bar(paper, scale, (left, right, layout.legend_top), words)
    left = first + width + 3 * _GAP
    top = layout.legend_top + 16
    paper[top : top + _BAR, left : left + _BAR] = Scale(0, 1, error.colours).paint(np.full((1, 1), np.nan))
    _text(paper, "no value", (left + _BAR + 6, top + _BAR - 3), 0.4, _QUIET)


def _bar(paper: NDArray[np.uint8], scale: Scale, place: tuple[int, int, int], words: str) -> None:
    left, right, top = place
    _text(paper, words, (left, top + 8), 0.4, _INK)
    values = np.linspace(scale.low, scale.high, right - left)
    paper[top + 16 : top + 16 + _BAR, left:right] = scale.paint(values[None])
    for tick in round_ticks(scale.low, scale.high, 4):
        x = left + round((tick - scale.low) / (scale.high - scale.low) * (right - left - 1))
        paper[top + 16 + _BAR : top + 20 + _BAR, x] = _INK
        label = f"{tick:g}"
        wide = cv2.getTextSize(label, _FONT, 0.38, 1)[0][0]
        start = min(max(left, x - wide // 2), right - wide)
        _text(paper, label, (start, top + 34 + _BAR), 0.38, _QUIET)


def _text(
    paper: NDArray[np.uint8], words: str, place: tuple[int, int], size: float, colour: tuple[int, int, int]
) -> None:
    plain = words.encode("ascii", "replace").decode()  # the fonts of OpenCV know no other letters
    cv2.putText(paper, plain, place, _FONT, size, colour, 1, cv2.LINE_AA)


def _resized(picture: NDArray[np.uint8], height: int, *, exact: bool) -> NDArray[np.uint8]:
    """A tile; painted values must not mix, or there were colours of depths that nobody predicted."""
    shrinks = picture.shape[1] >= TILE_WIDTH
    method = cv2.INTER_NEAREST_EXACT if exact else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (TILE_WIDTH, height), interpolation=method), np.uint8)


def _power(value: float) -> float:
    return float(10.0 ** np.floor(np.log10(max(value, 1e-6))))


def _heat() -> NDArray[np.uint8]:
    """(256, 3) RGB of Inferno: nothing is black, much is bright."""
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8).reshape(-1, 1), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(np.asarray(bgr, np.uint8).reshape(256, 3)[:, ::-1])
