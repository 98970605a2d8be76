from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.sources import SceneProblem, registry

HOLOLENS = Path(__file__).parents[2] / "fixtures" / "hololens"


@pytest.mark.parametrize("kind", registry.READERS)
def test_every_kind_has_a_reader_whose_options_have_defaults(kind, tmp_path):
    module = registry._module(kind)
    parameters = inspect.signature(module.find_scenes).parameters.values()
    options = [p for p in parameters if p.name != "path"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in options)
    assert tuple(p.name for p in options) == registry.option_names(kind)
    with pytest.raises((SceneProblem, SpatialError), match=str(tmp_path)):
        registry.find_scenes(kind, tmp_path)


def test_kinds_are_the_documented_ones():
    assert list(registry.READERS) == [
        "scannet", "tum", "seven_scenes", "posed_rgbd", "tapvid3d", "object_motion", "rosbag", "simulated",
    ]  # fmt: skip


def test_text_becomes_what_the_option_is():
    (ref,) = registry.find_scenes("posed_rgbd", HOLOLENS, world_up="0,1,0", stride="4", depth_scale="0.0005")
    scene = ref.open(*ref.arguments)
    np.testing.assert_array_equal(scene.world_up, [0, 1, 0])
    assert len(scene.frames) == 3
    (plain,) = registry.find_scenes("posed_rgbd", HOLOLENS, stride=4)
    np.testing.assert_allclose(scene.depth_m(1) * 2, plain.open(*plain.arguments).depth_m(1))


@pytest.mark.parametrize(
    ("kind", "option", "text", "value"),
    [
        ("tum", "moving", "yes", True),
        ("tum", "moving", "False", False),
        ("tum", "intrinsics", "525,525,319.5,239.5", (525.0, 525.0, 319.5, 239.5)),
        ("object_motion", "images", "ir", "ir"),
        ("object_motion", "ball_radii_m", "0.012,0.01", (0.012, 0.01)),
        ("rosbag", "depth", "none", "none"),
        ("rosbag", "every", "3", 3),
        ("tapvid3d", "still_camera", "1", True),
    ],
)
def test_options_of_other_types(kind, option, text, value):
    wanted = registry._option_types(registry._module(kind))[option]
    found = registry._parsed(option, text, wanted)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "option", "text", "words"),
    [
        ("scannet", "stride", "five", "option scannet.stride should be a whole number, found 'five'"),
        ("posed_rgbd", "world_up", "0,1", "should be 3 numbers separated by commas, found '0,1'"),
        ("posed_rgbd", "world_up", "0,y,0", "should be 3 numbers separated by commas"),
        ("posed_rgbd", "depth_scale", "mm", "should be a number, found 'mm'"),
        ("rosbag", "max_gap_s", "nan", "should be a number, found 'nan'"),
        ("rosbag", "max_gap_s", "inf", "should be a number, found 'inf'"),
        ("posed_rgbd", "world_up", "0,nan,1", "should be 3 numbers separated by commas, found '0,nan,1'"),
        ("tum", "moving", "perhaps", "should be true or false"),
        ("object_motion", "images", "uv", "should be one of rgb, ir"),
        ("object_motion", "ball_radii_m", "a,b", "should be numbers separated by commas"),
    ],
)
def test_text_of_another_type(kind, option, text, words, tmp_path):
    with pytest.raises(SpatialError, match=words) as caught:
        registry.find_scenes(kind, tmp_path, **{option: text})
    assert caught.value.code == ErrorCode.BAD_NUMBER


def test_what_there_is_not():
    with pytest.raises(SpatialError, match="no sources of kind 'kitti'; there are: scannet, tum,"):
        registry.find_scenes("kitti", HOLOLENS)
    with pytest.raises(SpatialError, match="no sources of kind"):
        registry.option_names("")
    with pytest.raises(SpatialError, match="kind 'posed_rgbd' have no option 'up'; they have: world_up,"):
        registry.find_scenes("posed_rgbd", HOLOLENS, up="0,1,0")
    with pytest.raises(SpatialError, match="have no option 'stride'; they have: none"):
        registry.find_scenes("simulated", HOLOLENS, stride="2")
