"""Lens distortion on the z = 1 plane, both ways; knows neither pixels nor focal lengths.

The models are those of sensor_msgs/CameraInfo with OpenCV's formulas: `plumb_bob` (Brown),
`rational_polynomial` (with OpenCV's optional thin prism and sensor tilt terms) and `equidistant`
(Kannala-Brandt, OpenCV's `fisheye`). They are written in numpy because OpenCV's inverse stops
after five fixed-point iterations without saying whether it arrived, and the function that takes
a termination criterion changed its name between OpenCV 4 and 5. OpenCV is the tests' oracle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError

Array = NDArray[np.float64]

#: Coefficient counts each model may come with; 0 means "no distortion".
COEFFICIENT_COUNTS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (0, 4, 5, 8, 12, 14),
    "equidistant": (0, 4),
}

#: Names under which drivers (librealsense, image pipelines) publish the same models.
ALIASES: dict[str, str] = {
    "Brown Conrady": "plumb_bob",
    "fisheye": "equidistant",
    "Kannala Brandt4": "equidistant",
}

#: Names that are fine as long as all coefficients are zero: no model, or one we do not compute.
UNDISTORTED_NAMES = frozenset(
    {"", "none", "None", "pinhole", "Inverse Brown Conrady", "Modified Brown Conrady"}
)

_CONVERGED = 1e-10  # distance on the z = 1 plane; below 1e-6 px for any focal length under 10^4 px
_MAX_ITERATIONS = 60
_HALF_TURN = np.pi


def checked(model: str, coefficients: Array) -> tuple[str, Array]:
    """Return the canonical model name and coefficients, or raise.

    An empty model name (and the other `UNDISTORTED_NAMES`) is allowed only without distortion:
    then it means `plumb_bob` with no coefficients. All-zero coefficients of the two polynomial
    models are dropped. Four zeros of `equidistant` are kept: they mean the ideal fisheye
    r = f theta, which is not a pinhole.

    Raises:
        SpatialError: UNKNOWN_DISTORTION_MODEL, BAD_DISTORTION.
    """
    name = ALIASES.get(model, model)
    if coefficients.size and not bool(np.isfinite(coefficients).all()):
        raise SpatialError(
            ErrorCode.BAD_DISTORTION,
            f"the distortion coefficients contain NaN or infinity ({_listed(coefficients)})",
        )
    if name in UNDISTORTED_NAMES:
        if coefficients.any():
            raise SpatialError(
                ErrorCode.UNKNOWN_DISTORTION_MODEL,
                f"CameraInfo has distortion coefficients under the model name '{model}'; expected "
                f"one of {', '.join(COEFFICIENT_COUNTS)}",
            )
        return "plumb_bob", np.zeros(0)
    if name not in COEFFICIENT_COUNTS:
        raise SpatialError(
            ErrorCode.UNKNOWN_DISTORTION_MODEL,
            f"unknown distortion model '{model[:60]}'; expected one of "
            f"{', '.join(COEFFICIENT_COUNTS)}, or rectify the image and set input_is_rectified",
        )
    allowed = COEFFICIENT_COUNTS[name]
    if coefficients.size not in allowed:
        raise SpatialError(
            ErrorCode.BAD_DISTORTION,
            f"distortion model '{name}' takes {', '.join(map(str, allowed[1:]))} coefficients "
            f"(or none), found {coefficients.size}",
        )
    if name != "equidistant" and not coefficients.any():
        return name, np.zeros(0)
    return name, coefficients


def distort(model: str, d: Array, xy: Array) -> Array:
    """Move ideal points to where the lens puts them.

    Args:
        model: canonical model name (see `checked`).
        d: its coefficients; empty means no distortion.
        xy: (N, 2) points x/z, y/z.

    Returns:
        (N, 2) distorted points on the z = 1 plane.
    """
    if d.size == 0:
        return xy.copy()
    if model == "equidistant":
        r = np.hypot(xy[:, 0], xy[:, 1])
        theta = np.arctan(r)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(r > 1e-12, _theta_distorted(d, theta) / r, 1.0)
        return np.asarray(xy * scale[:, None])
    out, _ = _polynomial(d, xy)
    if d.size == 14:
        out = _homography(_tilt(d[12], d[13]), out)
    return out


def undistort(model: str, d: Array, xy: Array) -> Array:
    """Undo `distort`: find the ideal points that the lens puts at `xy`.

    Returns:
        (N, 2) ideal points; a row is NaN where no ideal point exists in the part of the plane
        over which the lens model is one to one (or, for a fisheye, at 90 degrees and beyond).
    """
    if d.size == 0:
        return xy.copy()
    if model == "equidistant":
        r_d = np.hypot(xy[:, 0], xy[:, 1])
        theta = undistort_theta(d, r_d)
        tangent = np.where(theta < np.pi / 2, np.tan(theta), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.where(r_d > 1e-12, tangent / r_d, 1.0)
        return np.asarray(xy * scale[:, None])
    if d.size == 14:
        untilt: Array = np.linalg.inv(_tilt(d[12], d[13])).astype(np.float64)
        xy = _homography(untilt, xy)
    return _newton(d, xy)


def undistort_theta(d: Array, theta_d: Array) -> Array:
    """Return the angle from the optical axis, rad, whose distorted angle is `theta_d` (fisheye).

    NaN where the polynomial never reaches `theta_d` while still growing.
    """
    if d.size == 0:
        return np.asarray(np.arctan(theta_d))
    theta = np.minimum(theta_d, _HALF_TURN)
    for _ in range(_MAX_ITERATIONS):
        step = (_theta_distorted(d, theta) - theta_d) / _theta_slope(d, theta)
        step = np.clip(np.nan_to_num(step, nan=0.0, posinf=0.2, neginf=-0.2), -0.2, 0.2)
        theta = np.clip(theta - step, 0.0, _HALF_TURN)
        if bool((np.abs(step) < _CONVERGED).all()):
            break
    arrived = np.abs(_theta_distorted(d, theta) - theta_d) < 1e-9
    return np.where(arrived & (theta <= theta_limit(d)), theta, np.nan)


def theta_limit(d: Array) -> float:
    """Return the largest angle, rad, up to which the fisheye polynomial only grows."""
    # np.roots would be exact, but overflows on coefficients that are almost zero
    theta = np.linspace(0.0, _HALF_TURN, 4097)
    falling = _theta_slope(d, theta) <= 0
    if not bool(falling.any()):
        return _HALF_TURN
    high = theta[int(np.argmax(falling))]
    low = high - theta[1]
    for _ in range(40):
        middle = 0.5 * (low + high)
        if float(_theta_slope(d, np.array(middle))) > 0:
            low = middle
        else:
            high = middle
    return float(low)


def _theta_distorted(d: Array, theta: Array) -> Array:
    t2 = theta * theta
    return np.asarray(theta * (1 + t2 * (d[0] + t2 * (d[1] + t2 * (d[2] + t2 * d[3])))))


def _theta_slope(d: Array, theta: Array) -> Array:
    t2 = theta * theta
    return np.asarray(1 + t2 * (3 * d[0] + t2 * (5 * d[1] + t2 * (7 * d[2] + t2 * 9 * d[3]))))


def _polynomial(d: Array, xy: Array) -> tuple[Array, Array]:
    """Brown's model with OpenCV's extensions, and its (N, 2, 2) Jacobian; tilt not included."""
    c = np.zeros(12)
    c[: min(d.size, 12)] = d[:12]
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = c
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    num = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    den = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    d_num = k1 + r2 * (2 * k2 + 3 * r2 * k3)  # with respect to r2
    d_den = k4 + r2 * (2 * k5 + 3 * r2 * k6)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        radial = num / den
        d_radial = (d_num - radial * d_den) / den
    out = np.empty_like(xy)
    out[:, 0] = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2)
    out[:, 1] = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4)
    prism_x, prism_y = s1 + 2 * r2 * s2, s3 + 2 * r2 * s4
    jac = np.empty((len(xy), 2, 2))
    jac[:, 0, 0] = radial + 2 * x * x * d_radial + 2 * p1 * y + 6 * p2 * x + 2 * x * prism_x
    jac[:, 0, 1] = 2 * x * y * d_radial + 2 * p1 * x + 2 * p2 * y + 2 * y * prism_x
    jac[:, 1, 0] = 2 * x * y * d_radial + 2 * p1 * x + 2 * p2 * y + 2 * x * prism_y
    jac[:, 1, 1] = radial + 2 * y * y * d_radial + 6 * p1 * y + 2 * p2 * x + 2 * y * prism_y
    return out, jac


def _newton(d: Array, target: Array) -> Array:
    """Solve `_polynomial(d, xy) == target`, with step halving, staying where the Jacobian is positive."""
    result = np.full_like(target, np.nan)
    todo = np.flatnonzero(np.isfinite(target).all(axis=1))
    xy = target[todo].copy()
    value, jac = _polynomial(d, xy)
    # Where the target itself lies beyond the one-to-one region, begin from the axis instead.
    lost = ~_proper(value, jac)
    xy[lost] = 0.0
    value, jac = _polynomial(d, xy)
    goal = target[todo]
    error = np.hypot(*(value - goal).T)
    for _ in range(_MAX_ITERATIONS):
        done = error < _CONVERGED
        if bool(done.any()):
            result[todo[done]] = xy[done]
            keep = ~done
            todo, xy, goal = todo[keep], xy[keep], goal[keep]
            value, jac, error = value[keep], jac[keep], error[keep]
        if todo.size == 0:
            break
        residual = value - goal
        det = jac[:, 0, 0] * jac[:, 1, 1] - jac[:, 0, 1] * jac[:, 1, 0]
        step = np.empty_like(residual)
        step[:, 0] = (jac[:, 1, 1] * residual[:, 0] - jac[:, 0, 1] * residual[:, 1]) / det
        step[:, 1] = (jac[:, 0, 0] * residual[:, 1] - jac[:, 1, 0] * residual[:, 0]) / det
        pending = np.ones(todo.size, dtype=bool)
        factor = 1.0
        for _ in range(12):
            trial = xy[pending] - factor * step[pending]
            t_value, t_jac = _polynomial(d, trial)
            t_error = np.hypot(*(t_value - goal[pending]).T)
            better = _proper(t_value, t_jac) & (t_error < error[pending])
            where = np.flatnonzero(pending)[better]
            xy[where], value[where] = trial[better], t_value[better]
            jac[where], error[where] = t_jac[better], t_error[better]
            pending[where] = False
            if not bool(pending.any()):
                break
            factor *= 0.5
        if bool(pending.any()):  # no downhill step left: floating-point floor or no solution
            floor = pending & (error < 100 * _CONVERGED)
            result[todo[floor]] = xy[floor]
            keep = ~pending
            todo, xy, goal = todo[keep], xy[keep], goal[keep]
            value, jac, error = value[keep], jac[keep], error[keep]
    return result


def _proper(value: Array, jac: Array) -> NDArray[np.bool_]:
    """Where the mapping keeps orientation in both directions, as a lens does around its axis."""
    det = jac[:, 0, 0] * jac[:, 1, 1] - jac[:, 0, 1] * jac[:, 1, 0]
    trace = jac[:, 0, 0] + jac[:, 1, 1]
    return np.asarray(np.isfinite(value).all(axis=1) & (det > 1e-9) & (trace > 0))


def _tilt(tau_x: float, tau_y: float) -> Array:
    """OpenCV's tilted-sensor homography (Scheimpflug)."""
    cx, sx, cy, sy = np.cos(tau_x), np.sin(tau_x), np.cos(tau_y), np.sin(tau_y)
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rot = about_y @ about_x
    onto_sensor = np.array([[rot[2, 2], 0, -rot[0, 2]], [0, rot[2, 2], -rot[1, 2]], [0, 0, 1.0]])
    return np.asarray(onto_sensor @ rot)


def _homography(h: Array, xy: Array) -> Array:
    out = np.column_stack([xy, np.ones(len(xy))]) @ h.T
    return np.asarray(out[:, :2] / out[:, 2:])


def _listed(values: Array) -> str:
    return ", ".join(f"{v:g}" for v in values[:14])
