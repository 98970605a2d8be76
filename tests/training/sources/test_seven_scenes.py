from __future__ import annotations

import cv2
import numpy as np
import pytest

from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.seven_scenes import KINECT, find_scenes


def test_sequences_of_one_number_keep_apart(write_seven_scenes, tmp_path):
    """Every scene of the data set has a seq-01; all sequences of a scene show one place."""
    for name in ("chess/seq-01", "chess/seq-02", "fire/seq-01"):
        write_seven_scenes(tmp_path / "data" / name)
    refs = find_scenes(tmp_path / "data")
    assert [(ref.name, ref.place) for ref in refs] == [
        ("chess_seq-01", "chess"),
        ("chess_seq-02", "chess"),
        ("fire_seq-01", "fire"),
    ]
    assert [ref.name for ref in find_scenes(tmp_path / "data" / "chess")] == ["chess_seq-01", "chess_seq-02"]
    (one,) = find_scenes(tmp_path / "data" / "chess" / "seq-02")
    assert (one.name, one.place) == ("chess_seq-02", "chess")


def test_up_is_unknown_unless_given(write_seven_scenes):
    written = write_seven_scenes()
    assert written.open().world_up is None
    np.testing.assert_allclose(written.open(world_up=(0, -3, 0)).world_up, [0, -1, 0])
    with pytest.raises(SceneProblem, match="world_up should be three numbers"):
        written.open(world_up=(0, 0, 0))


def test_the_published_camera_is_the_default(write_seven_scenes):
    written = write_seven_scenes()
    for file in [*written.images, *written.depths]:
        pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), cv2.resize(pixels, (640, 480), interpolation=cv2.INTER_NEAREST))
    (ref,) = find_scenes(written.folder)
    camera = ref.open(*ref.arguments).frames[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == KINECT == (585, 585, 320, 240)
    assert (camera.width, camera.height) == (640, 480)


def test_every_fifth_frame_by_default(write_seven_scenes):
    written = write_seven_scenes()
    (ref,) = find_scenes(written.folder)
    with pytest.raises(SceneProblem, match="principal point"):  # 96 px images are not the Kinect's
        ref.open(*ref.arguments)
    (ref,) = find_scenes(written.folder, intrinsics=written.options["intrinsics"])
    assert [frame.name for frame in ref.open(*ref.arguments).frames] == ["frame-000000", "frame-000005"]


def test_depth_that_is_all_65535_is_empty(write_seven_scenes):
    written = write_seven_scenes()
    cv2.imwrite(str(written.depths[0]), np.full((72, 96), 65535, np.uint16))
    with pytest.raises(SceneProblem, match="holds no depth at all"):
        written.open().depth_m(0)
