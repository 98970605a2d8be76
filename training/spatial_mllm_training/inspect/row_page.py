"""One HTML page that shows rows with their images, words and truth, for a person to check."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_core.evaluation.document import document
from spatial_mllm_training.inspect import overlay
from spatial_mllm_training.multispa.rows import Row

_WIDTH_PX = 640
_CAMERA = ("movement", "angle", "total_distance", "displacement_vector")


def page(title: str, rows: Sequence[Row], images: Path) -> str:
    """The whole page; `images` is the data set's image folder."""
    style = files("spatial_mllm_training.inspect").joinpath("pages.css").read_text(encoding="utf-8")
    subtasks = list(dict.fromkeys(r.question_type for r in rows))
    index = "".join(f'<a href="#{escape(s)}">{escape(s)}</a>' for s in subtasks)
    body = "".join(
        f'<h2 id="{escape(s)}">{escape(s)}</h2>'
        + "".join(_card(r, images) for r in rows if r.question_type == s)
        for s in subtasks
    )
    legend = (
        '<p class="hint">Dots and letters are in the images themselves. Rings and green marks are drawn by this page '
        "from the exact numbers: yellow ring = asked, green target = truth, green line = where the point went.</p>"
    )
    return document(title, f'<h1>{escape(title)}</h1>{legend}<nav class="index">{index}</nav>{body}', style)


def _card(row: Row, images: Path) -> str:
    s = row.spatial
    pictures = "".join(_picture(row, i, images / path) for i, path in enumerate(row.image))
    plan = ""
    if len(row.image) == 2 and row.question_type.endswith(_CAMERA) and "tapvid3d" not in row.question_type:
        plan = overlay.camera_plan(row)
    facts = [
        ("truth", truth_words(row)),
        ("gt_value", str(row.gt_value)),
        ("balanced by", s.group),
        ("about", " ".join(w for w in (s.variant, s.category) if w)),
        ("scene", f"{s.source} · {s.scene} · {s.split}"),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    return (
        f'<article class="row" id="{escape(row.id)}"><h3>{escape(row.id)}</h3>'
        f'<div class="pictures">{pictures}{plan}</div><p class="asked">{escape(row.question)}</p>'
        f'<p class="said">{escape(row.answer)}</p><dl>{listed}</dl></article>'
    )


def truth_words(row: Row) -> str:
    """The exact truth with its unit."""
    if not row.spatial.truth:
        return row.spatial.label
    numbers = ", ".join(f"{v:.4f}" if row.spatial.unit == "m" else f"{v:.2f}" for v in row.spatial.truth)
    return (
        f"({numbers}) {row.spatial.unit}" if len(row.spatial.truth) > 1 else f"{numbers} {row.spatial.unit}"
    )


def _picture(row: Row, image: int, path: Path) -> str:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        return f'<figure><p class="fault">{escape(path.name)} does not open</p></figure>'
    width, height = row.spatial.size[image]
    factor = min(1.0, _WIDTH_PX / pixels.shape[1])
    if factor < 1:
        pixels = np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    url = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    words = f"Image-{image + 1} · {row.spatial.frames[image]} · {width}×{height}, f {row.spatial.k[image][0]:.0f} px"
    return (
        f'<figure><div class="stack"><img src="{url}" alt="{escape(words)}">{overlay.over_image(row, image)}</div>'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )
