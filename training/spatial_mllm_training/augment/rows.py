"""A MultiSPA row and its images as other cameras would have given them; knows no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.augment.config import AugmentConfig
from spatial_mllm_training.augment.draws import ViewDraw, draw_view, is_held_out
from spatial_mllm_training.augment.labels import NotAskableError, exact_truth, relabelled, reworded
from spatial_mllm_training.augment.lens import Rectified, rectified
from spatial_mllm_training.augment.warp import CameraWarp, is_pinhole
from spatial_mllm_training.multispa import dots
from spatial_mllm_training.multispa.rows import Row, RowPoint

_STILL_CAMERA = "pstudio"
_ALL = 0.999  # of the image, but for what rounding cuts


@dataclass(frozen=True, eq=False)
class AugmentedRow:
    """A row with the images it speaks of.

    Attributes:
        row: question, answer, cameras, poses, points and truth of the new images. Its paths still
            name the pictures that it was made from.
        images: (H, W, 3) uint8 RGB each, dots drawn where the subtask has dots.
        cameras: of the images.
        world_from_camera: (4, 4) each.
        depths_m: (H, W) float32 z-depth each, 0 = none; None where none was given.
        warps: how each image came about; () when the geometry was left as it is.
    """

    row: Row
    images: tuple[NDArray[np.uint8], ...]
    cameras: tuple[CameraModel, ...]
    world_from_camera: tuple[NDArray[np.float64], ...]
    depths_m: tuple[NDArray[np.float32] | None, ...]
    warps: tuple[CameraWarp, ...]


@dataclass(frozen=True, eq=False)
class _View:
    """One image of a row with what belongs to it; `lens` takes its distortion out."""

    camera: CameraModel
    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None
    lens: Rectified | None


def augment_row(
    row: Row,
    images: Sequence[NDArray[np.uint8]],
    config: AugmentConfig,
    rng: np.random.Generator,
    *,
    depths_m: Sequence[NDArray[np.floating] | None] = (),
) -> AugmentedRow | None:
    """The row seen by random other cameras, with every label right; None when it cannot be shown.

    A draw under which the question loses its answer (a point leaves its image, dots touch, depths
    become equal) is drawn again, milder each time; after `config.tries` draws the geometry stays as it is,
    but for a resize to `config.output_size`. None comes only when this shows a field of view that is held
    out or, with an output size, loses the answer.

    - Images with lens distortion are rectified first; when the geometry stays, so does the distortion.
    - Questions about an object's size have no points that say what must be seen, so their images are
      only resized and never cut. Pairs of a moved camera keep `config.least_kept` of their area.
    - Questions of a still camera (`pstudio`) turn both images alike, so that it stays still.

    Args:
        images: (H, W, 3) uint8 RGB without dots, `row.spatial.source_image`.
        depths_m: (H, W) z-depth of each image, 0 or NaN = none; or nothing.

    Raises:
        SpatialError: SIZE_MISMATCH, UNSUPPORTED_ENCODING, WRONG_FRAME_COUNT, UNKNOWN_TASK or a code of
            the camera's, naming the row.
    """
    cameras, poses = _cameras(row), _poses(row)
    views = _views(row, cameras, images, depths_m)
    plain = _unchanged(row, cameras, poses)
    result, warps = plain, ()
    draws: list[ViewDraw] = []
    strengths = [1.0 - attempt / config.tries for attempt in range(config.tries)]
    if config.output_size:
        strengths.append(0.0)
    for strength in strengths:
        draws = _draws(row, config, rng, strength)
        try:
            warps = _warps(row, views, draws, config)
            result = relabelled(_rectified_row(plain, views), warps, config)
            break
        except NotAskableError:
            warps = ()
    if not warps:
        if config.output_size or any(is_held_out(camera, config.held_out_hfov_deg) for camera in cameras):
            return None
        draws = draws or [ViewDraw() for _ in cameras]
    pictures, depths = _pictures(views, warps, draws, rng)
    points, drawn = _dotted(result, pictures, rng)
    return AugmentedRow(
        row=replace(result, spatial=replace(result.spatial, points=points)),
        images=drawn,
        cameras=tuple(warp.target for warp in warps) or tuple(cameras),
        world_from_camera=tuple(_poses(result)),
        depths_m=depths,
        warps=warps,
    )


def _draws(row: Row, config: AugmentConfig, rng: np.random.Generator, strength: float) -> list[ViewDraw]:
    count = len(row.spatial.size)
    if config.same:
        draws = [draw_view(rng, config, strength)] * count
    else:
        draws = [draw_view(rng, config, strength) for _ in range(count)]
    if row.question_type.endswith(_STILL_CAMERA):
        draws = [replace(draw, turn_deg=draws[0].turn_deg) for draw in draws]
    if tasks.get(row.question_type).group == "object_size":
        draws = [draw.only_resized() for draw in draws]
    return draws


def _warps(
    row: Row, views: Sequence[_View], draws: Sequence[ViewDraw], config: AugmentConfig
) -> tuple[CameraWarp, ...]:
    """The warps of all images; raises NotAskableError when one may not be shown."""
    group = tasks.get(row.question_type).group
    warps = []
    for view, draw in zip(views, draws, strict=True):
        camera = view.lens.camera if view.lens else view.camera
        try:
            warp = draw.warp(camera, config.output_size)
        except SpatialError as error:
            raise NotAskableError(error.sentence) from error
        if is_held_out(warp.target, config.held_out_hfov_deg):
            raise NotAskableError("the field of view is held out")
        least = config.least_kept if group.startswith("camera") else _ALL if group == "object_size" else 0.0
        if warp.kept_share * (view.lens.kept_share if view.lens else 1.0) < least:
            raise NotAskableError("too little of the image is kept")
        warps.append(warp)
    return tuple(warps)


def _rectified_row(row: Row, views: Sequence[_View]) -> Row:
    """The row with its points and its answer's pixel in the rectified images."""
    if not any(view.lens for view in views):
        return row
    points = []
    for point in row.spatial.points:
        lens = views[point.image].lens
        if lens is not None:
            u_px, v_px = lens.points(np.array([[point.u_px, point.v_px]]))[0].tolist()
            point = replace(point, u_px=u_px, v_px=v_px)
        points.append(point)
    return replace(row, spatial=replace(row.spatial, points=tuple(points)))


def _pictures(
    views: Sequence[_View],
    warps: Sequence[CameraWarp],
    draws: Sequence[ViewDraw],
    rng: np.random.Generator,
) -> tuple[list[NDArray[np.uint8]], tuple[NDArray[np.float32] | None, ...]]:
    pictures, depths = [], []
    for number, (view, draw) in enumerate(zip(views, draws, strict=True)):
        image, depth_m = view.image, view.depth_m
        if warps:
            if view.lens:
                image = view.lens.image(image)
                depth_m = None if depth_m is None else view.lens.depth(depth_m)
            image = warps[number].image(image)
            depth_m = None if depth_m is None else warps[number].depth(depth_m)
        pictures.append(image if draw.colour is None else draw.colour.image(image, rng))
        depths.append(depth_m)
    return pictures, tuple(depths)


def _dotted(
    row: Row, pictures: Sequence[NDArray[np.uint8]], rng: np.random.Generator
) -> tuple[tuple[RowPoint, ...], tuple[NDArray[np.uint8], ...]]:
    """Points and images with new dots, drawn as in the data set."""
    points, images = list(row.spatial.points), list(pictures)
    if tasks.get(row.question_type).reference != "dot":
        return tuple(points), tuple(images)
    for number, picture in enumerate(pictures):
        here = [i for i, p in enumerate(points) if p.image == number and p.role != "answer"]
        if not here:
            continue
        marks = [dots.Dot(points[i].u_px, points[i].v_px, points[i].label) for i in here]
        images[number], drawn = dots.draw(picture, marks, rng)
        for i, dot in zip(here, drawn, strict=True):
            points[i] = replace(points[i], drawn=True, radius_px=dot.radius_px, rgb=dot.rgb)
    return tuple(points), tuple(images)


def _unchanged(row: Row, cameras: Sequence[CameraModel], poses: Sequence[NDArray[np.float64]]) -> Row:
    return reworded(row, exact_truth(row), row.spatial.points, cameras, poses)


# -- what a row must hold -------------------------------------------------------------------------


def _cameras(row: Row) -> list[CameraModel]:
    spatial = row.spatial
    numbers = (len(spatial.k), len(spatial.size), len(spatial.distortion), len(spatial.d))
    if not numbers[0] or len(set(numbers)) > 1:
        raise SpatialError(
            ErrorCode.NO_CALIBRATION,
            f"row '{row.id}' needs K, size, distortion model and coefficients of every image, "
            f"found {', '.join(map(str, numbers))}",
        )
    try:
        return [
            CameraModel.from_k(k, *size, d=d, distortion_model=model)
            for k, size, model, d in zip(spatial.k, spatial.size, spatial.distortion, spatial.d, strict=True)
        ]
    except SpatialError as error:
        raise SpatialError(error.code, f"row '{row.id}': {error.sentence}") from error


def _poses(row: Row) -> list[NDArray[np.float64]]:
    poses = [np.array(pose, np.float64) for pose in row.spatial.world_from_camera]
    if len(poses) != len(row.spatial.k) or not all(p.size == 16 and np.isfinite(p).all() for p in poses):
        raise SpatialError(
            ErrorCode.BAD_NUMBER, f"row '{row.id}' needs sixteen finite numbers of the pose of every image"
        )
    return [pose.reshape(4, 4) for pose in poses]


def _views(
    row: Row,
    cameras: Sequence[CameraModel],
    images: Sequence[NDArray[np.uint8]],
    depths_m: Sequence[NDArray[np.floating] | None],
) -> list[_View]:
    depths = list(depths_m) or [None] * len(cameras)
    if not len(images) == len(depths) == len(cameras):
        raise SpatialError(
            ErrorCode.WRONG_FRAME_COUNT,
            f"row '{row.id}' speaks of {len(cameras)} image(s), {len(images)} given with {len(depths)} depth(s)",
        )
    views = []
    for number, (camera, image, depth_m) in enumerate(zip(cameras, images, depths, strict=True), 1):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise SpatialError(
                ErrorCode.UNSUPPORTED_ENCODING,
                f"row '{row.id}': image {number} must be (H, W, 3) uint8, found {image.shape} {image.dtype}",
            )
        for what, array in (("image", image), ("depth", depth_m)):
            if array is not None and array.shape[:2] != (camera.height, camera.width):
                raise SpatialError(
                    ErrorCode.SIZE_MISMATCH,
                    f"row '{row.id}': {what} {number} has {array.shape[1]}x{array.shape[0]} px but its K is "
                    f"for {camera.width}x{camera.height} px",
                )
        known = None
        if depth_m is not None:
            known = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)
        views.append(_View(camera, image, known, None if is_pinhole(camera) else rectified(camera)))
    return views
