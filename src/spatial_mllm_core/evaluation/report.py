"""The report of an evaluation: one HTML file with everything inside, readable on phone and screen.

It loads nothing from anywhere: pictures are data URLs, curves are inline SVG, there is no script.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.evaluation.chart import Series, line_chart
from spatial_mllm_core.evaluation.colours import Scale, confidence_scale, depth_scale
from spatial_mllm_core.evaluation.document import document
from spatial_mllm_core.evaluation.results import Evaluation, FramePictures
from spatial_mllm_core.files import write_atomically

_PICTURE_WIDTH = 560
_NARROW = ("Verdict", "Confidence", "Time")
_TIGHT = ' class="tight"'


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write the page; an older page of the same name is replaced at once, never half.

    Raises:
        SpatialError: NOT_WRITABLE.
    """
    write_atomically(path, page(evaluation).encode("utf-8"), replace=True)


def page(e: Evaluation) -> str:
    """The whole page as text."""
    style = files("spatial_mllm_core.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    body = "".join((_head(e), _cards(e), _notes(e), _depth(e), _reward(e), _questions(e), _explanation()))
    return document(f"{e.bag} · spatial_mllm report", body, style)


# -- sections ---------------------------------------------------------------------------------------


def _head(e: Evaluation) -> str:
    return (
        f'<header><p class="kicker">spatial_mllm report</p><h1>{escape(e.bag)}</h1>'
        f'<p class="lead">{escape(summary(e))}</p>'
        f'<p class="meta">model <b>{escape(e.model)}</b> · {e.duration_s:.1f} s of recording</p></header>'
    )


def summary(e: Evaluation) -> str:
    """What the figures say, in two or three sentences for a person."""
    said = []
    if e.depth is not None:
        said.append(
            f"Depth is off by {e.depth.abs_rel:.0%} of the true distance on average; "
            f"{e.depth.delta1:.0%} of the pixels are within 25% of it."
        )
    elif e.frames_answered:
        said.append("There is no true depth in the recording, so the depth below is shown but not judged.")
    if math.isfinite(e.trend):
        words = "follows" if e.trend > 0.8 else "partly follows" if e.trend > 0.4 else "does not follow"
        said.append(f"The predicted displacement {words} the true one (rank correlation {_signed(e.trend)}).")
    elif any(math.isfinite(r.true_m) for r in e.rewards):
        said.append(f"There is no reward trend: {e.trend_words.removeprefix('none, ')}.")
    judged = [q for q in e.questions if q.is_correct is not None]
    if judged:
        said.append(f"{sum(bool(q.is_correct) for q in judged)} of {len(judged)} questions are right.")
    return " ".join(said) or "No frame could be judged."


def _cards(e: Evaluation) -> str:
    cards = [
        _card(
            "Frames",
            f"{e.frames_answered}",
            f"answered of {e.frames_words.replace(f' in, {e.frames_answered} answered', '')}",
            None if e.frames_in == 0 else e.frames_answered == e.frames_in,
        )
    ]
    if e.depth is not None:
        cards.append(
            _card(
                "Depth error",
                f"{e.depth.abs_rel:.3f}",
                f"AbsRel, mean of {e.depth.images} images; 0 is perfect",
            )
        )
        cards.append(
            _card("Within 25%", f"{e.depth.delta1:.1%}", f"of pixels (δ₁); RMSE {e.depth.rmse_m:.2f} m")
        )
    if e.aligned is not None:
        cards.append(
            _card(
                "Shape error",
                f"{e.aligned.abs_rel:.3f}",
                f"AbsRel after scaling by {e.aligned.scale:.2f} (median)",
            )
        )
    if math.isfinite(e.trend):
        cards.append(
            _card(
                "Reward trend", _signed(e.trend), "Spearman, predicted against true displacement; 1 is best"
            )
        )
    elif e.rewards:
        cards.append(_card("Reward trend", "none", e.trend_words.removeprefix("none, ")))
    if e.replay is not None:
        compared = e.replay.depths + e.replay.answers + e.replay.rewards
        word = "equal" if e.replay.is_equal else "different" if e.replay.difference else "not compared"
        cards.append(
            _card("Replay", word, f"{compared} outputs against a fresh offline run", e.replay.is_equal)
        )
    return f'<section class="cards">{"".join(cards)}</section>'


def _card(name: str, value: str, words: str, is_good: bool | None = None) -> str:
    mark = "" if is_good is None else " good" if is_good else " bad"
    return (
        f'<div class="card{mark}"><h3>{escape(name)}</h3><b>{escape(value)}</b><p>{escape(words)}</p></div>'
    )


def _notes(e: Evaluation) -> str:
    notes = list(e.notes)
    if e.replay is not None and not e.replay.is_equal:
        notes.append(f"Replay: {e.replay.sentence}.")
    if not notes:
        return ""
    return f'<section class="notes"><ul>{"".join(f"<li>{escape(n)}</li>" for n in notes)}</ul></section>'


def _depth(e: Evaluation) -> str:
    if not e.pictures:
        return ""
    depths = [d for p in e.pictures for d in (p.depth_m, p.true_m) if d is not None]
    scale = depth_scale(list(depths))
    rows = "".join(_picture_row(p, scale, e) for p in e.pictures)
    chart = ""
    if any(f.depth is not None for f in e.frames):
        # images without a true depth are no gap in the prediction, so the curve goes past them
        errors = [(f.time_s, f.depth.abs_rel) for f in e.frames if f.depth is not None]
        curves = [Series("as measured", errors, "a")]
        if any(f.aligned is not None for f in e.frames):
            shape = [(f.time_s, f.aligned.abs_rel) for f in e.frames if f.aligned is not None]
            curves.append(Series("after scaling each image", shape, "b"))
        chart = line_chart("Depth error of every image", "time, s", "AbsRel", curves)
    return (
        f"<section><h2>Depth</h2>{_legend('Depth in metres, red is near', scale, 'm')}{rows}"
        f"{_legend('Confidence of the depth, no unit, not calibrated', confidence_scale(), '')}{chart}</section>"
    )


def _picture_row(p: FramePictures, scale: Scale, e: Evaluation) -> str:
    cells = [_picture("Camera", _jpeg_url(p.image_rgb, p.point_px))]
    if p.depth_m is not None:
        cells.append(_picture("Predicted depth", _png_url(scale.paint(p.depth_m))))
    if p.true_m is not None:
        cells.append(_picture("True depth", _png_url(scale.paint(np.where(p.true_m > 0, p.true_m, np.nan)))))
    if p.confidence is not None:
        cells.append(_picture("Confidence", _png_url(confidence_scale().paint(p.confidence))))
    figures = next((f for f in e.frames if f.stamp_ns == p.stamp_ns), None)
    words = f"{p.time_s:.2f} s"
    if figures is not None and figures.depth is not None:
        words += f" · AbsRel {figures.depth.abs_rel:.3f} · {figures.depth.delta1:.0%} of pixels within 25%"
    if p.point_px is not None:
        words += " · the ring marks the tracked point"
    return f'<div class="row"><h3>{escape(words)}</h3><div class="pictures">{"".join(cells)}</div></div>'


def _picture(name: str, url: str) -> str:
    return f'<figure><img src="{url}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'


def _legend(words: str, scale: Scale, unit: str) -> str:
    none = '<span><i class="none"></i>no value</span>' if unit else ""
    stops = ", ".join("rgb({},{},{})".format(*scale.colours[i]) for i in range(0, 256, 15))
    after = f" {unit}" if unit else ""
    ticks = "".join(
        f'<span style="left:{(t - scale.low) / (scale.high - scale.low):.2%}">{t:g}{after}</span>'
        for t in scale.ticks(5)
    )
    return (
        f'<div class="scale"><p>{escape(words)}{none}</p>'
        f'<div class="bar" style="background:linear-gradient(90deg,{stops})"></div>'
        f'<div class="ticks">{ticks}</div></div>'
    )


def _reward(e: Evaluation) -> str:
    if not e.rewards:
        return ""
    curves = [Series("predicted", [(r.time_s, r.predicted_m) for r in e.rewards], "a")]
    if any(math.isfinite(r.true_m) for r in e.rewards):
        curves.append(Series("true", [(r.time_s, r.true_m) for r in e.rewards], "b"))
    displacement = line_chart("Displacement of the tracked point", "time, s", "metres", curves)
    progress = line_chart(
        "Progress and reward",
        "time, s",
        "no unit",
        [
            Series("progress (potential)", [(r.time_s, r.progress) for r in e.rewards], "a"),
            Series("reward of the image", [(r.time_s, r.reward) for r in e.rewards], "c"),
        ],
    )
    words = ""
    if e.displacement is not None:
        d = e.displacement
        words = (
            f"<p>Over {d.count} images the displacement vector is off by {d.mean_m * 100:.1f} cm on average "
            f"(median {d.median_m * 100:.1f} cm), its length by {d.length_mean_m * 100:.1f} cm"
            + (f", its direction by {d.direction_deg:.0f}°" if math.isfinite(d.direction_deg) else "")
            + ".</p>"
        )
    invalid = sum(1 for r in e.rewards if not math.isfinite(r.predicted_m))
    if invalid:
        words += (
            f"<p>{invalid} of {len(e.rewards)} images could not be judged; the curves have gaps there.</p>"
        )
    return f'<section><h2>Reward</h2>{words}<div class="charts">{displacement}{progress}</div></section>'


def _questions(e: Evaluation) -> str:
    if not e.questions:
        return ""
    rows = []
    for q in e.questions:
        verdict = "unknown" if q.is_correct is None else "right" if q.is_correct else "wrong"
        answer = escape(q.answer) if not q.fault else f'<span class="fault">{escape(q.fault)}</span>'
        cells = (
            ("Question", f"{escape(q.asked)}<small>{escape(q.task)}</small>"),
            ("Answer", answer),
            ("Truth", escape(q.truth or "unknown")),
            ("Verdict", f'<span class="verdict {verdict}">{verdict}</span>'),
            ("Confidence", f"{q.confidence:.2f}"),
            ("Time", f"{q.latency_s * 1000:.0f} ms"),
        )
        rows.append(f"<tr>{''.join(_cell(name, html) for name, html in cells)}</tr>")
    head = "".join(f"<th{_TIGHT if name in _NARROW else ''}>{name}</th>" for name, _ in cells)
    return (
        f"<section><h2>Questions</h2><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "<p class=hint>Right means: a length or vector within 20% of the truth's length, a point within 5% of the "
        "image width, a word exactly.</p></section>"
    )


def _cell(name: str, html: str) -> str:
    return f'<td{_TIGHT if name in _NARROW else ""} data-name="{name}">{html}</td>'


def _explanation() -> str:
    return (
        "<section class=explain><h2>How to read this</h2><dl>"
        "<dt>AbsRel</dt><dd>Mean of |predicted − true| / true over the pixels that have a true depth.</dd>"
        "<dt>Within 25% (δ₁)</dt><dd>Share of these pixels whose depth is at most 1.25 times "
        "too large or too small.</dd>"
        "<dt>Shape error</dt><dd>AbsRel after each image was multiplied with its best overall scale: what is left is "
        "wrong shape, not wrong size.</dd>"
        "<dt>Reward trend</dt><dd>Spearman's rank correlation: 1 when the prediction rises exactly when the truth "
        "rises, 0 when they have nothing to do with each other.</dd>"
        "<dt>Replay</dt><dd>The recorded live outputs against a fresh offline run on the same images; equal means "
        "equal in every bit.</dd></dl></section>"
    )


# -- pictures ---------------------------------------------------------------------------------------


def _jpeg_url(image_rgb: NDArray[np.uint8], point_px: tuple[float, float] | None) -> str:
    import cv2

    image, factor = _shrink(image_rgb)
    if point_px is not None:
        image = image.copy()
        centre = (round((point_px[0] + 0.5) * factor - 0.5), round((point_px[1] + 0.5) * factor - 0.5))
        radius = max(6, image.shape[1] // 45)
        cv2.circle(image, centre, radius, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.circle(image, centre, radius, (255, 255, 255), 2, cv2.LINE_AA)
    return _url(image, ".jpg", "image/jpeg", [cv2.IMWRITE_JPEG_QUALITY, 85])


def _png_url(image_rgb: NDArray[np.uint8]) -> str:
    # painted values must not mix across edges, or there were colours of depths that nobody predicted
    return _url(_shrink(image_rgb, exact=True)[0], ".png", "image/png", [])


def _shrink(image: NDArray[np.uint8], *, exact: bool = False) -> tuple[NDArray[np.uint8], float]:
    """The image at most `_PICTURE_WIDTH` wide (two screen pixels each on a phone), and the factor."""
    import cv2

    height, width = image.shape[:2]
    factor = min(1.0, _PICTURE_WIDTH / width)
    if factor == 1.0:
        return image, 1.0
    size = (round(width * factor), max(1, round(height * factor)))
    method = cv2.INTER_NEAREST if exact else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8), factor


def _url(image_rgb: NDArray[np.uint8], extension: str, kind: str, options: Sequence[int]) -> str:
    import cv2

    done, data = cv2.imencode(extension, np.ascontiguousarray(image_rgb[:, :, ::-1]), list(options))
    assert done
    encoded: Any = base64.b64encode(data.tobytes())
    return f"data:{kind};base64,{encoded.decode()}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
