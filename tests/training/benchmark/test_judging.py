"""The published rules at their edges."""

from __future__ import annotations

import pytest

from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.benchmark.judging import has_zero_truth, judge


@pytest.mark.parametrize(
    ("subtask", "truth", "text", "is_right"),
    [
        ("depth_estimation_coor", TaskValue((1.0,)), "`1199`", True),
        ("depth_estimation_coor", TaskValue((1.0,)), "`801`", True),
        ("depth_estimation_coor", TaskValue((1.0,)), "`1201`", False),
        ("depth_estimation_coor", TaskValue((1.0,)), "`799`", False),
        ("depth_estimation_coor", TaskValue((1.0,)), "1.1 m", True),
        ("yaw_angle", TaskValue((30.0,)), "`36`", True),
        ("yaw_angle", TaskValue((30.0,)), "`37`", False),
        ("displacement_vector", TaskValue((0.3, 0.0, 0.4)), "`[300, 99, 400]`", True),
        ("displacement_vector", TaskValue((0.3, 0.0, 0.4)), "`[300, 101, 400]`", False),
        ("displacement_vector", TaskValue((0.3, 0.0, 0.4)), "`[-300, 0, -400]`", False),
        ("x_movement", TaskValue(label="left"), "`left`", True),
        ("x_movement", TaskValue(label="left"), "`right`", False),
        ("visual_correspondence_multiple_choice", TaskValue(label="B"), "`B`", True),
        ("visual_correspondence_multiple_choice", TaskValue(label="B"), "`C`", False),
    ],
)
def test_rules(make_row, subtask, truth, text, is_right):
    verdict = judge(make_row(subtask, truth=truth), text)
    assert verdict.is_read
    assert verdict.is_right == is_right


@pytest.mark.parametrize(
    ("size", "text", "is_right"),
    [
        # 5 % of 640 px is 32 px: 50 units across, 66.7 units down in an image 480 px high
        ((640, 480), "`[ 549 , 500 ]`", True),
        ((640, 480), "`[ 551 , 500 ]`", False),
        ((640, 480), "`[ 500 , 566 ]`", True),
        ((640, 480), "`[ 500 , 568 ]`", False),
        # an upright image: 24 px are 37.5 units down
        ((480, 640), "`[ 500 , 537 ]`", True),
        ((480, 640), "`[ 500 , 539 ]`", False),
    ],
)
def test_a_coordinate_is_judged_in_pixels_of_the_image_width(make_row, size, text, is_right):
    row = make_row("visual_correspondence_coor_2_coor", truth=TaskValue((500.0, 500.0)), size=size)
    assert judge(row, text).is_right == is_right


def test_a_coordinate_is_judged_in_the_image_of_the_answer(make_row):
    import dataclasses

    row = make_row("visual_correspondence_coor_2_coor", truth=TaskValue((500.0, 500.0)))
    row = dataclasses.replace(row, spatial=dataclasses.replace(row.spatial, size=((640, 480), (480, 640))))
    assert not judge(row, "`[ 500 , 560 ]`").is_right


def test_a_comparison_is_exact_even_between_points_that_are_close(make_row):
    points = ((500, 500), (530, 500))  # 19 px apart, the tolerance of coordinates would be 32 px
    row = make_row("depth_comparison_coordinate", points=points, truth=TaskValue((500.0, 500.0)))
    assert judge(row, "`[ 500 , 500 ]`").is_right
    assert not judge(row, "`[ 530 , 500 ]`").is_right


def test_strict_reads_backticks_only(make_row):
    row = make_row("depth_estimation_coor", truth=TaskValue((1.15,)))
    assert judge(row, "1150 mm").is_right
    assert not judge(row, "1150 mm", strict=True).is_read
    assert judge(row, "It is `1150`.", strict=True).is_right


def test_a_truth_of_zero_leaves_only_zero(make_row):
    row = make_row("yaw_angle", truth=TaskValue((0.0,)))
    assert has_zero_truth(row)
    assert judge(row, "`0`").is_right
    assert not judge(row, "`1`").is_right
    assert not has_zero_truth(make_row("yaw_angle", truth=TaskValue((1.0,))))
    assert not has_zero_truth(make_row("x_movement"))


@pytest.mark.parametrize("text", ["", "I cannot tell.", "`[ 1 , 2 , 3 , 4 ]`"])
def test_nothing_readable_is_wrong(make_row, text):
    verdict = judge(make_row("displacement_vector"), text)
    assert not verdict.is_read
    assert not verdict.is_right
