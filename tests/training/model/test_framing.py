"""Tokens and pixels: sizes of the stock processors, rays of OpenCV, pixels of the stock processors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.families import (
    FAMILIES,
    internvl,
    llava_next_video,
    llava_onevision,
    qwen2_5_vl,
)
from spatial_mllm_training.model.preprocess import Processing, normalised, reframed, token_rays

SIZES = [
    (640, 480),
    (1296, 968),
    (641, 479),
    (640, 481),
    (97, 61),
    (61, 97),
    (333, 1000),
    (56, 56),
    (28, 3000),
    (5, 7),
    (900, 900),
]

#: Levels of 255 between torch's and Pillow's bicubic filter, both with rounded fixed-point weights: 2 at
#: ordinary shapes, 3 where one axis shrinks seven times and the other grows sixteen times.
LEVELS = 3


def published_config(family):
    """The stock classes' default configurations: the towers of the published checkpoints."""
    import transformers as tf

    return {
        "qwen2_5_vl": tf.Qwen2_5_VLConfig,
        "internvl": tf.InternVLConfig,
        "llava_onevision": tf.LlavaOnevisionConfig,
        "llava_next_video": tf.LlavaNextVideoConfig,
    }[family.name]()


def stock_pixels(family, processing, image):
    """(3, H, W) float32 of transformers' own Pillow processor."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    colours = {"image_mean": processing.image_mean, "image_std": processing.image_std}
    if family is qwen2_5_vl:
        stock = Qwen2VLImageProcessorPil(
            min_pixels=processing.min_pixels, max_pixels=processing.max_pixels, **colours
        )
        out = stock(images=[image], return_tensors="pt")
        _, rows, columns = out["image_grid_thw"][0].tolist()
        x = out["pixel_values"].reshape(rows // 2, columns // 2, 2, 2, 3, 2, 14, 14)[..., 0, :, :]
        return x.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * 14, columns * 14)
    if family is internvl:
        stock = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, **colours)
        return stock(images=[image], return_tensors="pt")["pixel_values"][0]
    if family is llava_onevision:
        out = LlavaOnevisionImageProcessorPil(**colours)(images=[[image, image]], return_tensors="pt")
        assert out["pixel_values"].shape[:2] == (2, 1)  # two images of one view each
        return out["pixel_values"][0, 0]
    # the video processor exists for torchvision only; CLIP's has the same steps and numbers
    stock = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, **colours
    )
    return stock(images=[image], return_tensors="pt")["pixel_values"][0]


def smooth_image(width, height, rng):
    """Colours as a camera sees them: blobs, not noise."""
    small = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_equal_the_stock_processors(family, size):
    rng = np.random.default_rng(0)
    config, processing = published_config(family), family.PROCESSING
    image = smooth_image(*size, rng)
    framing = family.framing(config, processing, *size)
    own = normalised(processing, reframed(framing, processing, torch.from_numpy(image)))
    expected = stock_pixels(family, processing, image)
    assert own.shape == expected.shape
    levels = (own - expected).abs() * 255 * torch.tensor(processing.image_std)[:, None, None]
    assert levels.max() < LEVELS + 0.01
    assert levels.mean() < 0.2


def test_pixels_that_need_no_resampling_are_the_stock_processors_to_rounding(family):
    size = {
        "qwen2_5_vl": (560, 336),
        "internvl": (448, 448),
        "llava_onevision": (384, 384),
        "llava_next_video": (501, 336),  # the middle is cut out
    }[family.name]
    config, processing = published_config(family), family.PROCESSING
    framing = family.framing(config, processing, *size)
    image = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    own = normalised(processing, reframed(framing, processing, torch.from_numpy(image)))
    torch.testing.assert_close(own, stock_pixels(family, processing, image), atol=1e-6, rtol=0)


def test_sizes_equal_smart_resize_everywhere():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    config, rng = published_config(qwen2_5_vl), np.random.default_rng(2)
    tried = 0
    for width, height in rng.integers(1, 4000, (4000, 2)):
        bounds = (4 * 784, int(rng.choice([16, 256, 576, 1280])) * 784)
        processing = Processing((0.5,) * 3, (0.5,) * 3, *bounds)
        if max(width, height) > 200 * min(width, height):
            with pytest.raises(SpatialError, match="200 times"):
                qwen2_5_vl.framing(config, processing, int(width), int(height))
            continue
        framing = qwen2_5_vl.framing(config, processing, int(width), int(height))
        expected = smart_resize(int(height), int(width), 28, *bounds)
        assert (framing.resized_height, framing.resized_width) == expected
        assert framing.grid_height * 28 == expected[0] and framing.grid_width * 28 == expected[1]
        tried += 1
    assert tried > 3500


def test_sizes_equal_shortest_edge_and_centre_crop_everywhere():
    from transformers.image_transforms import get_resize_output_image_size

    config, rng = published_config(llava_next_video), np.random.default_rng(3)
    for width, height in rng.integers(1, 3000, (2000, 2)).tolist():
        framing = llava_next_video.framing(config, llava_next_video.PROCESSING, width, height)
        blank = np.broadcast_to(np.uint8(0), (3, height, width))
        expected = get_resize_output_image_size(blank, 336, default_to_square=False)
        assert (framing.resized_height, framing.resized_width) == expected
        assert framing.crop_top == (expected[0] - 336) // 2
        assert framing.crop_left == (expected[1] - 336) // 2


@pytest.mark.parametrize(
    ("model", "lens"),
    [
        ("plumb_bob", ()),
        ("plumb_bob", (-0.28, 0.09, 0.0007, -0.0004, 0.01)),
        ("rational_polynomial", (0.4, -0.2, 0.0003, 0.0002, 0.05, 0.7, -0.1, 0.02)),
    ],
    ids=["pinhole", "plumb_bob", "rational"],
)
@pytest.mark.parametrize(
    "size", [(640, 480), (641, 479), (640, 481), (1296, 968), (97, 61), (480, 640), (301, 900)], ids=str
)
def test_ray_at_a_token_centre_is_opencvs_for_that_pixel_of_the_original_image(family, size, model, lens):
    width, height = size
    long = max(size)
    k = np.array([[0.9 * long, 0, 0.46 * width], [0, 0.95 * long, 0.55 * height], [0, 0, 1]])
    camera = CameraModel.from_k(k, width, height, d=lens, distortion_model=model)
    config = published_config(family)
    framing = family.framing(config, family.PROCESSING, width, height)
    found = token_rays(framing, camera)
    pixels, sees = independent_centres(family, framing, width, height)
    u, v = framing.token_centres_px()
    np.testing.assert_allclose(np.stack(np.meshgrid(u, v), -1).reshape(-1, 2), pixels, atol=1e-9)
    np.testing.assert_array_equal(found.sees_pixel_N[: len(sees)], sees)
    assert not found.sees_pixel_N[len(sees) :].any()
    assert sees.sum() > 0
    undistorted = opencv_rays(pixels[sees], k, lens)
    rays = found.rays_N4[: len(sees)][sees]
    np.testing.assert_allclose(rays[:, :2], undistorted, atol=2e-6)
    assert not found.rays_N4[~found.sees_pixel_N].any()
    # focal lengths in token pitches: how many tokens a ray of slope 1 lies from the axis
    tokens_per_px = pitch_of(family, framing, width, height)
    np.testing.assert_allclose(rays[:, 2], np.log(k[0, 0] * tokens_per_px[0]), atol=1e-6)
    np.testing.assert_allclose(rays[:, 3], np.log(k[1, 1] * tokens_per_px[1]), atol=1e-6)


def opencv_rays(pixels, k, lens):
    """(N, 2) x/z, y/z; OpenCV 5 moved the criteria of convergence into undistortPoints."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-14)
    if hasattr(cv2, "undistortPointsIter"):
        return cv2.undistortPointsIter(pixels[:, None], k, np.asarray(lens, float), None, None, criteria)[
            :, 0
        ]
    return cv2.undistortPoints(pixels[:, None], k, np.asarray(lens, float), criteria=criteria)[:, 0]


def affine(family, framing, width, height):
    """Input pixel = scale * (source pixel + 0.5) + shift - 0.5 per axis, written per family from its processor."""
    if family is qwen2_5_vl:
        return (framing.resized_width / width, 0.0), (framing.resized_height / height, 0.0)
    if family is internvl:
        return (448 / width, 0.0), (448 / height, 0.0)
    if family is llava_onevision:
        scale = 384 / max(width, height)
        left, top = max(0, height - width) // 2, max(0, width - height) // 2
        return (scale, left * scale), (scale, top * scale)
    new = [336, 336]
    new[int(width <= height)] = int(336 * max(width, height) / min(width, height))
    return (new[0] / width, -((new[0] - 336) // 2)), (new[1] / height, -((new[1] - 336) // 2))


def pitch_of(family, framing, width, height):
    pitch = 14 if family is llava_onevision else 28
    return [scale / pitch for scale, _ in affine(family, framing, width, height)]


def independent_centres(family, framing, width, height):
    """(pixels of the source image (N, 2), whether they lie in it (N,)) of the raster tokens."""
    pitch = 14 if family is llava_onevision else 28
    rows, columns = {
        "qwen2_5_vl": (framing.resized_height // 28, framing.resized_width // 28),
        "internvl": (16, 16),
        "llava_onevision": (27, 27),
        "llava_next_video": (12, 12),
    }[family.name]
    (sx, bx), (sy, by) = affine(family, framing, width, height)
    out = np.array(
        [
            [((j + 0.5) * pitch - bx) / sx - 0.5, ((i + 0.5) * pitch - by) / sy - 0.5]
            for i in range(rows)
            for j in range(columns)
        ]
    )
    sees = (out >= -0.5).all(1) & (out[:, 0] <= width - 0.5) & (out[:, 1] <= height - 0.5)
    return out, sees


@pytest.mark.parametrize("size", [(1296, 968), (700, 1000), (560, 420)], ids=str)
def test_a_mark_in_the_original_image_shows_up_at_its_token(family, size):
    """Pixels end to end: a bright square painted around the source pixel of a token lights up that token."""
    config, processing = published_config(family), Processing((0.5,) * 3, (0.5,) * 3)
    framing = family.framing(config, processing, *size)
    rows, columns = framing.seen_rectangle()
    u, v = framing.token_centres_px()
    for i in {rows.start + 1, (rows.start + rows.stop) // 2, rows.stop - 2}:
        for j in {columns.start + 1, (columns.start + columns.stop) // 2, columns.stop - 2}:
            image = np.zeros((size[1], size[0], 3), np.uint8)
            half = 0.4 * framing.pitch_px / np.array([framing.scale_x, framing.scale_y])
            x0, x1 = round(u[j] - half[0]), round(u[j] + half[0])
            y0, y1 = round(v[i] - half[1]), round(v[i] + half[1])
            image[y0 : y1 + 1, x0 : x1 + 1] = 255
            shown = reframed(framing, processing, torch.from_numpy(image))[0].float()
            if framing.padded_width != framing.padded_height or framing.trailing_tokens:
                shown[shown < 200] = 0  # the grey frame
            pitch = framing.pitch_px
            cells = shown[: framing.grid_height * pitch, : framing.grid_width * pitch]
            cells = cells.reshape(framing.grid_height, pitch, framing.grid_width, pitch).sum((1, 3))
            assert divmod(int(cells.argmax()), framing.grid_width) == (i, j)
            ys, xs = torch.nonzero(shown > 127, as_tuple=True)
            assert abs(float(xs.float().mean()) - (pitch * (j + 0.5) - 0.5)) <= 1.0 + framing.scale_x
            assert abs(float(ys.float().mean()) - (pitch * (i + 0.5) - 0.5)) <= 1.0 + framing.scale_y


def test_resizing_an_image_by_hand_first_changes_no_slope(family):
    """Rays belong to the scene: half the pixels with half the K see the same directions."""
    config = published_config(family)
    camera = CameraModel.from_fov(1120, 896, hfov_rad=1.1)
    large = token_rays(family.framing(config, family.PROCESSING, 1120, 896), camera)
    small_framing = family.framing(config, family.PROCESSING, 560, 448)
    small = token_rays(small_framing, camera.resized(560, 448))
    if family is not qwen2_5_vl:  # which looks at them with fewer tokens
        np.testing.assert_allclose(large.rays_N4, small.rays_N4, atol=1e-5)
    else:
        np.testing.assert_allclose(
            large.rays_N4[:, 2].mean() - small.rays_N4[:, 2].mean(), np.log(2), atol=1e-5
        )


def test_fisheye_tokens_stay_finite(family):
    k = [[180.0, 0, 320], [0, 180.0, 240], [0, 0, 1]]
    camera = CameraModel.from_k(k, 640, 480, d=[0.01, -0.002, 0.0, 0.0], distortion_model="equidistant")
    rays = token_rays(family.framing(published_config(family), family.PROCESSING, 640, 480), camera)
    assert np.isfinite(rays.rays_N4).all()


def test_a_missing_camera_says_so_and_keeps_the_tokens(family):
    framing = family.framing(published_config(family), family.PROCESSING, 640, 480)
    rays = token_rays(framing, None)
    assert not rays.has_camera and not rays.rays_N4.any()
    assert len(rays.rays_N4) == framing.token_count == len(rays.sees_pixel_N)


def test_a_camera_of_another_image_is_refused(family):
    framing = family.framing(published_config(family), family.PROCESSING, 640, 480)
    with pytest.raises(SpatialError, match="640x480 px but K belongs to one of 1280x960") as caught:
        token_rays(framing, CameraModel.from_fov(1280, 960, hfov_rad=1.0))
    assert caught.value.code == ErrorCode.SIZE_MISMATCH
    with pytest.raises(SpatialError, match="640x480"):
        reframed(framing, family.PROCESSING, torch.zeros(479, 640, 3, dtype=torch.uint8))


def test_a_lens_that_cannot_be_undone_names_the_image(family):
    camera = CameraModel.from_k(
        [[300.0, 0, 320], [0, 300.0, 240], [0, 0, 1]], 640, 480, d=[-0.9, 0.0, 0, 0, 0], frame_id="left"
    )
    with pytest.raises(SpatialError, match=r"'left' cannot be undone.*640x480") as caught:
        token_rays(family.framing(published_config(family), family.PROCESSING, 640, 480), camera)
    assert caught.value.code == ErrorCode.BAD_DISTORTION


@pytest.mark.parametrize("size", [(3000, 2), (2, 3000), (1, 1)], ids=str)
def test_the_thinnest_images_keep_a_token_that_sees(size):
    for family in (internvl, llava_onevision, llava_next_video):
        framing = family.framing(published_config(family), family.PROCESSING, *size)
        camera = CameraModel.from_fov(*size, hfov_rad=1.0)
        assert token_rays(framing, camera).sees_pixel_N.any()


def test_saved_processor_settings_are_followed():
    processing = qwen2_5_vl.PROCESSING.updated(
        {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": None,
            "resample": 3,
        }
    )
    assert processing == Processing((0.1, 0.2, 0.3), qwen2_5_vl.IMAGE_STD, 3136, 12845056)
    newer = qwen2_5_vl.PROCESSING.updated({"size": {"shortest_edge": 784, "longest_edge": 78400}})
    assert (newer.min_pixels, newer.max_pixels) == (784, 78400)
    fixed = llava_next_video.PROCESSING.updated({"size": {"shortest_edge": 336}})
    assert fixed == llava_next_video.PROCESSING
    with pytest.raises(SpatialError, match="filter 2"):
        internvl.PROCESSING.updated({"resample": 2})


def test_registry_names_are_the_configurations_model_types():
    for name, family in FAMILIES.items():
        assert published_config(family).model_type == name
