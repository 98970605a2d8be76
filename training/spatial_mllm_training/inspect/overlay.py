"""Draws a row's truth over its images as SVG, from the exact numbers and not from its words."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.rows import Row, RowPoint


def camera(row: Row, image: int) -> CameraModel:
    """Intrinsics of one of the row's images."""
    width, height = row.spatial.size[image]
    return CameraModel.from_k(
        row.spatial.k[image],
        width,
        height,
        d=row.spatial.d[image],
        distortion_model=row.spatial.distortion[image],
    )


def world_from_camera(row: Row, image: int) -> NDArray[np.float64]:
    """(4, 4) pose of one of the row's images."""
    return np.array(row.spatial.world_from_camera[image]).reshape(4, 4)


def over_image(row: Row, image: int) -> str:
    """An SVG of the image's size: rings at asked points, green marks where the truth is."""
    width, height = row.spatial.size[image]
    unit = width / 100
    marks = [_mark(p, _is_true(row, p), unit) for p in row.spatial.points if p.image == image]
    marks += _motion(row, image, unit)
    return (
        f'<svg class="over" viewBox="-0.5 -0.5 {width} {height}" preserveAspectRatio="none">'
        f"{''.join(marks)}</svg>"
    )


def _is_true(row: Row, point: RowPoint) -> bool:
    if point.role == "answer" or (point.label and point.label == row.spatial.label):
        return True
    # a compared point that is the answer's pixel
    return row.spatial.unit == "px" and bool(
        np.allclose((point.u_px, point.v_px), row.spatial.truth, atol=0.01)
    )


def _mark(point: RowPoint, is_true: bool, unit: float) -> str:
    x, y = point.u_px, point.v_px
    if is_true:
        # around a drawn dot wide enough to leave its letter free
        return _target(x, y, (5.0 if point.drawn else 2.4) * unit)
    return "" if point.drawn else f'<circle class="asked" cx="{x:.2f}" cy="{y:.2f}" r="{2.4 * unit:.2f}"/>'


def _target(x: float, y: float, radius: float) -> str:
    """A ring with four ticks."""
    a, b = 0.7 * radius, 1.5 * radius
    ends = ((a, 0, b, 0), (-a, 0, -b, 0), (0, a, 0, b), (0, -a, 0, -b))
    ticks = "".join(
        f'<line class="true" x1="{x + x1:.2f}" y1="{y + y1:.2f}" x2="{x + x2:.2f}" y2="{y + y2:.2f}"/>'
        for x1, y1, x2, y2 in ends
    )
    return f'<circle class="true" cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}"/>{ticks}'


def _motion(row: Row, image: int, unit: float) -> list[str]:
    """Where a moved point went: an arrow in the first image, a mark in the second."""
    if not row.question_type.startswith("tapvid3d_displacement_vector"):
        return []
    start = np.array(row.spatial.points[0].point_in_world_m)
    end = start + world_from_camera(row, 0)[:3, :3] @ np.array(row.spatial.truth)
    seen = np.linalg.inv(world_from_camera(row, image)) @ np.array([*end, 1.0])
    if seen[2] <= 0:
        return []
    x, y = camera(row, image).project(seen[None, :3])[0]
    if image == 1:
        return [_target(x, y, 2.4 * unit)]
    first = row.spatial.points[0]
    return [f'<line class="true" x1="{first.u_px:.2f}" y1="{first.v_px:.2f}" x2="{x:.2f}" y2="{y:.2f}"/>']


def camera_plan(row: Row) -> str:
    """Both cameras of a pair from above and from the right, in the first camera's frame."""
    relative = np.linalg.inv(world_from_camera(row, 0)) @ world_from_camera(row, 1)
    return _view(relative, 0, 2, "from above: right →, forward ↑") + _view(
        relative, 2, 1, "from the right: forward →, down ↓"
    )


def _view(relative: NDArray[np.float64], across: int, along: int, words: str) -> str:
    """A plan with the axis `across` to the right; forward (2) runs upward, down (1) downward."""
    sign = -1.0 if along == 2 else 1.0
    reach = max(0.15, 1.35 * float(np.abs(relative[[across, along], 3]).max()))

    def place(point: NDArray[np.float64]) -> tuple[float, float]:
        return 70 * point[across] / reach, sign * 70 * point[along] / reach

    drawn = []
    for pose, style in ((np.eye(4), "one"), (relative, "two")):
        x, y = place(pose[:3, 3])
        tips = [place(pose[:3, 3] + reach * 0.25 * pose[:3, :3] @ corner) for corner in _corners(across)]
        outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in ((x, y), *tips))
        drawn.append(
            f'<polygon class="{style}" points="{outline}"/><circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        )
    x, y = place(relative[:3, 3])
    return (
        f'<figure class="plan"><svg viewBox="-90 -90 180 180"><line class="way" x1="0" y1="0" x2="{x:.1f}" '
        f'y2="{y:.1f}"/>{"".join(drawn)}</svg>'
        f"<figcaption>{escape(words)}; {reach:.2g} m to the edge</figcaption></figure>"
    )


def _corners(across: int) -> NDArray[np.float64]:
    """(2, 3) ends of the field of view in a camera's axes, seen from above or from the side."""
    ends = np.array([[0.0, 0.0, 1.0]] * 2)
    ends[:, 0 if across == 0 else 1] = -0.5, 0.5
    return ends
