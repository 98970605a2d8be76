"""`spatial-mllm depth`: an image file in; 16-bit PNG in millimetres and a colour PNG with a scale out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spatial_mllm_core.cli.common import (
    add_camera_options,
    add_model_options,
    frame_of,
    load_model,
)
from spatial_mllm_core.errors import ErrorCode, SpatialError

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = """  spatial-mllm depth kitchen.jpg --hfov 69 --out kitchen
  spatial-mllm depth kitchen.jpg --camera-info camera.yaml
writes kitchen_depth_mm.png (16 bit, millimetres, 0 = none) and kitchen_depth_colour.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, help="JPEG or PNG file")
    parser.add_argument(
        "--out", type=Path, metavar="STEM", help="stem of the output files (default: the image's)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    add_camera_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    from spatial_mllm_core.files import write_atomically
    from spatial_mllm_core.images import encode_png16

    frame = frame_of(options, options.image, 1)
    frame.require_camera()
    stem = options.out or options.image.with_suffix("")
    millimetres = stem.with_name(f"{stem.name}_depth_mm.png")
    colours = stem.with_name(f"{stem.name}_depth_colour.png")
    if not options.overwrite:
        for path in (millimetres, colours):
            if path.exists():
                raise SpatialError(
                    ErrorCode.OUTPUT_EXISTS, f"'{path}' exists already; give --overwrite or another --out"
                )
    model = load_model(options)
    depth_m = model.perceive(frame).depth_m
    write_atomically(millimetres, bytes(encode_png16(depth_m).data), replace=options.overwrite)
    write_atomically(colours, colour_png(depth_m), replace=options.overwrite)
    low, median, high = (float(v) for v in np.percentile(depth_m, (1, 50, 99)))
    print(f"{model.name}: depth {low:.2f} to {high:.2f} m, median {median:.2f} m")
    print(millimetres)
    print(colours)
    return 0


def colour_png(depth_m: NDArray[np.float32]) -> bytes:
    """PNG of depth in colours with a scale in metres at the right edge.

    Args:
        depth_m: (H, W) metres, NaN for none.
    """
    import cv2

    from spatial_mllm_core.evaluation.colours import depth_scale

    scale = depth_scale([depth_m])
    height = depth_m.shape[0]
    size = max(0.45, height / 800)
    text_w, text_h = cv2.getTextSize("00.00 m", cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0]
    pad, bar_w = max(8, height // 40), max(14, height // 24)
    strip = np.full((height, pad + bar_w + pad + text_w + pad, 3), 255, np.uint8)
    rows = np.arange(height)
    top, bottom = text_h, height - 1 - text_h
    # near at the bottom, as the ground of most pictures
    values = scale.low + (bottom - rows) / max(1, bottom - top) * (scale.high - scale.low)
    bar = scale.paint(np.repeat(values[top : bottom + 1, None], bar_w, axis=1))
    strip[top : bottom + 1, pad : pad + bar_w] = bar
    for tick in scale.ticks(max(2, min(8, height // 60))):
        row = round(bottom - (tick - scale.low) / (scale.high - scale.low) * (bottom - top))
        x = pad + bar_w
        cv2.line(strip, (x, row), (x + pad // 2, row), (0, 0, 0), 1)
        place = (x + pad, row + text_h // 2)
        cv2.putText(strip, f"{tick:g} m", place, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    whole = np.hstack([scale.paint(depth_m), strip])
    done, data = cv2.imencode(".png", np.ascontiguousarray(whole[:, :, ::-1]))
    assert done
    return bytes(data.tobytes())
