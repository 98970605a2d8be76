"""The tasks: published names and groups, enough templates, round trips of every wording, the published score."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import correspondence, depth, object_motion
from spatial_mllm_core.tasks.base import TaskValue

PUBLISHED = (
    "depth_estimation_dot",
    "depth_estimation_coor",
    "depth_comparison_annotated",
    "depth_comparison_coordinate",
    "visual_correspondence_multiple_choice",
    "visual_correspondence_coor_2_coor",
    "x_movement",
    "y_movement",
    "z_movement",
    "yaw_movement",
    "pitch_movement",
    "yaw_angle",
    "pitch_angle",
    "total_distance",
    "displacement_vector",
    "object_perception_height_estimation",
    "object_perception_length_estimation",
    "object_perception_width_estimation",
    "tapvid3d_total_distance_coord_adt",
    "tapvid3d_total_distance_coord_pstudio",
    "tapvid3d_total_distance_dot_adt",
    "tapvid3d_total_distance_dot_pstudio",
    "tapvid3d_displacement_vector_coord_adt",
    "tapvid3d_displacement_vector_coord_pstudio",
    "tapvid3d_displacement_vector_dot_adt",
    "tapvid3d_displacement_vector_dot_pstudio",
)
# The shipped bundle was trained on these words and words of another spelling would be new to it.
SERVED = {
    "depth_estimation_coor": "How deep is [ 512 , 340 ] in mm?",
    "depth_comparison_coordinate": "Which is closer to the camera, [ 512 , 340 ] or [ 7 , 99 ]?",
    "x_movement": "Did the camera move right or left?",
    "y_movement": "Did the camera move down or up?",
    "z_movement": "Did the camera move forward or backward?",
    "total_distance": "How far did the camera move in mm?",
    "displacement_vector": "Along which vector did the camera move in mm?",
    "tapvid3d_total_distance_coord_adt": "How far did [ 512 , 340 ] move in mm?",
    "tapvid3d_total_distance_coord_pstudio": "How far did [ 512 , 340 ] move in mm?",
    "tapvid3d_displacement_vector_coord_adt": "Along which vector did [ 512 , 340 ] move in mm?",
    "tapvid3d_displacement_vector_coord_pstudio": "Along which vector did [ 512 , 340 ] move in mm?",
}
# rows of the paper's Table 2 and how many subtasks they average
TABLE_2 = {
    "depth_comparison": 2,
    "depth_value": 2,
    "correspondence_coordinate": 1,
    "correspondence_mcq": 1,
    "camera_orientation_direction": 2,
    "camera_orientation_degree": 2,
    "camera_translation_direction": 3,
    "camera_translation_distance": 1,
    "camera_translation_vector": 1,
    "object_movement_distance": 4,
    "object_movement_vector": 4,
    "object_size": 3,
}
POINTS = ((512, 340), (7, 99))
ALL = pytest.mark.parametrize("name", PUBLISHED)

metres = st.floats(-50.0, 50.0, allow_nan=False)
coordinates = st.tuples(st.floats(0, 999.99), st.floats(0, 999.99))


def truths(task: tasks.Task) -> st.SearchStrategy[TaskValue]:
    """Every truth that a task can have."""
    return {
        "scalar": st.floats(0, 50.0).map(lambda v: TaskValue((v,))),
        "angle": st.floats(0, 180.0).map(lambda v: TaskValue((v,))),
        "vector": st.tuples(metres, metres, metres).map(TaskValue),
        "coordinate": coordinates.map(TaskValue),
        "label": st.sampled_from(task.labels or ("",)).map(lambda w: TaskValue(label=w)),
    }[task.kind]


def asked(task: tasks.Task, template: int = 0, variant: str = "") -> str:
    points = POINTS[: task.point_count]
    return task.question(points, template=template, variant=variant, category="coffee table")


# -- names --------------------------------------------------------------------------------------------


def test_names_are_the_published_ones_in_their_order():
    assert tasks.names() == PUBLISHED


def test_the_twelve_groups_part_the_subtasks():
    assert list(tasks.GROUPS) == list(TABLE_2)
    assert {group: len(members) for group, members in tasks.GROUPS.items()} == TABLE_2
    assert sorted(name for members in tasks.GROUPS.values() for name in members) == sorted(PUBLISHED)
    for group, members in tasks.GROUPS.items():
        assert {tasks.get(name).group for name in members} == {group}


def test_d_unknown_task_names_the_nearest_and_stays_one_short_sentence():
    with pytest.raises(SpatialError, match="did you mean yaw_movement") as fault:
        tasks.get("yaw_movment")
    assert fault.value.code is ErrorCode.UNKNOWN_TASK
    with pytest.raises(SpatialError, match="no task is named") as fault:
        tasks.get("q" * 10_000)
    assert len(fault.value.sentence) < 300


# -- words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVED)
def test_the_words_that_the_shipped_model_was_trained_on_do_not_change(name):
    task = tasks.get(name)
    assert asked(task) == SERVED[name]
    assert task.answers[0] == "`{value}`"


def test_the_labels_that_the_shipped_model_was_trained_on_do_not_change():
    assert [tasks.get(f"{axis}_movement").labels for axis in "xyz"] == [
        ("right", "left"),
        ("down", "up"),
        ("forward", "backward"),
    ]


@ALL
def test_there_are_enough_different_words(name):
    task = tasks.get(name)
    assert len(set(task.descriptions)) == len(task.descriptions) >= 5
    for wording in task.wordings:
        assert len(set(wording.questions)) == len(wording.questions) >= 10
        assert len(set(wording.answers)) == len(wording.answers) == len(task.answers) >= 5
    every = [q for wording in task.wordings for q in wording.questions]
    assert len(set(every)) == len(every)  # no question asks for either of two variants


@ALL
def test_questions_refer_as_the_subtask_does(name):
    task = tasks.get(name)
    for variant in task.variants or ("",):
        for template in range(len(task.questions_of(variant))):
            words = asked(task, template, variant)
            assert "{" not in words and "  " not in words and "`" not in words
            named = [f"[ {x} , {y} ]" in words for x, y in POINTS]
            assert named == [i < task.point_count for i in range(2)]
            assert ("coffee table" in words) == (task.reference == "category")
            says_dot = any(w in words for w in ("annotated", "dot"))
            assert says_dot == (task.reference == "dot")


@ALL
def test_the_human_turn_is_the_published_one(name):
    task = tasks.get(name)
    for count in range(task.frame_count, task.max_frame_count + 1):
        tags = "<image>\n" if count == 1 else "".join(f"Image-{i}: <image>\n" for i in range(1, count + 1))
        for description in range(len(task.descriptions)):
            prompt = task.prompt(
                count, POINTS[: task.point_count], templates=(description, 3), category="coffee table"
            )
            assert prompt.startswith(f"{tags}{task.description(description)} {asked(task, 3)}")
            assert prompt.count("<image>") == count
            explains = "from 0 to 1000" in prompt
            assert explains == bool(task.point_count or task.kind == "coordinate")
            assert all(label in prompt for label in task.labels)


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith("tapvid3d")])
def test_movement_is_relative_to_the_first_image(name):
    for words in tasks.get(name).descriptions:
        assert "first image" in words or "relative to Image-1" in words


@pytest.mark.parametrize("name", tasks.GROUPS["object_size"])
def test_object_size_speaks_of_an_unchanged_scene_in_one_to_five_images(name):
    task = tasks.get(name)
    assert (task.frame_count, task.max_frame_count) == (1, 5)
    for words in task.descriptions:
        assert any(w in words for w in ("unchanged", "Nothing moves", "stays as it is"))
        assert "all images" in words.lower() or "every one" in words
    for count in (0, 6):
        with pytest.raises(SpatialError, match=f"1 to 5 image.s., {count} given") as fault:
            task.prompt(count, category="chair")
        assert fault.value.code is ErrorCode.WRONG_FRAME_COUNT


def test_a_category_with_braces_is_a_word_and_a_missing_one_is_refused():
    task = tasks.get("object_perception_width_estimation")
    assert "{value} {0}" in task.question(category="{value} {0}")
    assert task.parse(
        task.answer_text(TaskValue((0.4,)), template=4, category="{value}")
    ) == TaskValue((0.4,))  # fmt: skip
    with pytest.raises(SpatialError) as fault:
        task.question(category=" ")
    assert fault.value.code is ErrorCode.EMPTY_QUESTION


def test_d_wrong_number_of_points_and_unknown_variant():
    with pytest.raises(SpatialError) as fault:
        depth.DEPTH_VALUE.question(POINTS)
    assert fault.value.code is ErrorCode.WRONG_POINT_COUNT
    with pytest.raises(SpatialError, match="no variant 'nearer'; it has closer, farther") as fault:
        depth.DEPTH_COMPARISON.question(POINTS, variant="nearer")
    assert fault.value.code is ErrorCode.UNKNOWN_TASK
    with pytest.raises(SpatialError, match="it has none"):
        depth.DEPTH_VALUE.question(POINTS[:1], variant="closer")


# -- round trips --------------------------------------------------------------------------------------


@ALL
@given(data=st.data())
def test_what_a_task_writes_it_reads_back(name, data):
    """Every wording of every truth, by both extractions, to the rounding of the published value."""
    task = tasks.get(name)
    truth = data.draw(truths(task))
    published = task.truth_of(task.gt_value(truth))
    variant = data.draw(st.sampled_from(task.variants or ("",)))
    template = data.draw(st.integers(0, len(task.answers) - 1))
    answer = task.answer_text(truth, template=template, variant=variant, category="coffee table")
    for parsed in (task.parse(answer), task.parse_strictly(answer)):
        assert parsed == published
        assert task.is_correct(parsed, published)
    assert task.gt_value(published) == task.gt_value(truth)  # rounding twice changes nothing


@ALL
@given(data=st.data())
def test_a_free_spelling_without_backticks_reads_the_same(name, data):
    task = tasks.get(name)
    truth = data.draw(truths(task))
    bare = task.answer_text(truth).strip("`")
    assert task.parse(f"Answer: {bare}") == task.truth_of(task.gt_value(truth))


@ALL
@given(answer=st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_code(name, answer):
    task = tasks.get(name)
    for parse in (task.parse, task.parse_strictly):
        with contextlib.suppress(SpatialError):  # any other exception fails the test
            parse(answer)


@given(st.floats(0.0, 180.0))
def test_published_numbers_are_the_nearest_integers(number):
    angle = tasks.get("yaw_angle").gt_value(TaskValue((number,)))
    assert isinstance(angle, int)
    assert abs(angle - number) <= 0.5
    length = tasks.get("total_distance").gt_value(TaskValue((number,)))
    assert isinstance(length, int)
    assert abs(length - 1000 * number) <= 0.5 + 1e-6


def test_published_values_have_the_published_types():
    assert depth.DEPTH_VALUE.gt_value(TaskValue((1.9496,))) == 1950
    assert object_motion.OBJECT_VECTOR_DOT[True].gt_value(TaskValue((0.1, -0.0354, 0.0))) == [100, -35, 0]
    # the last pixel column must not become 1000, which the scale does not have
    assert correspondence.CORRESPONDENCE.gt_value(TaskValue((999.7, -0.4))) == [999, 0]
    assert tasks.get("x_movement").gt_value(TaskValue(label="left")) == "left"


# -- score --------------------------------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_lengths_are_correct_within_twenty_percent_the_limit_included(predicted_mm, true_mm):
    task = depth.DEPTH_VALUE
    right = task.is_correct(task.truth_of(predicted_mm), task.truth_of(true_mm))
    assert right == (abs(predicted_mm - true_mm) <= Fraction(true_mm, 5))


@given(*[st.tuples(*[st.integers(-3000, 3000)] * 3)] * 2)
def test_vectors_are_correct_within_twenty_percent_of_their_length(predicted_mm, true_mm):
    task = tasks.get("displacement_vector")
    right = task.is_correct(task.truth_of(list(predicted_mm)), task.truth_of(list(true_mm)))
    error = sum((a - b) ** 2 for a, b in zip(predicted_mm, true_mm, strict=True))
    assert right == (25 * error <= sum(b**2 for b in true_mm))


@given(
    *[st.tuples(st.integers(0, 999), st.integers(0, 999))] * 2,
    st.sampled_from([(640, 480), (1296, 968), (480, 640), (1000, 1000)]),
)
def test_coordinates_are_correct_within_five_percent_of_the_width_in_pixels(predicted, true, size):
    task = correspondence.CORRESPONDENCE
    right = task.is_correct(task.truth_of(list(predicted)), task.truth_of(list(true)), size=size)
    width, height = size
    du, dv = (Fraction(a - b, 1000) for a, b in zip(predicted, true, strict=True))
    assert right == ((du * width) ** 2 + (dv * height) ** 2 <= Fraction(width, 20) ** 2)


def test_a_flat_image_forgives_more_of_its_height():
    task, truth = correspondence.CORRESPONDENCE, TaskValue((500.0, 340.0))
    assert task.is_correct(TaskValue((550.0, 340.0)), truth, size=(1920, 1080))
    assert not task.is_correct(TaskValue((551.0, 340.0)), truth, size=(1920, 1080))
    assert task.is_correct(TaskValue((500.0, 428.0)), truth, size=(1920, 1080))
    assert not task.is_correct(TaskValue((500.0, 428.0)), truth)


def test_a_choice_between_named_points_is_exact():
    task, truth = depth.DEPTH_COMPARISON, TaskValue((500.2, 339.6))
    assert task.is_correct(task.parse("`[ 500 , 340 ]`"), truth)
    assert not task.is_correct(task.parse("`[ 510 , 340 ]`"), truth), "that may be the other point"


def test_a_truth_of_zero_is_met_by_zero_alone():
    task = tasks.get("yaw_angle")
    assert task.is_correct(task.parse("`0`"), task.truth_of(0))
    assert not task.is_correct(task.parse("`1`"), task.truth_of(0))


def test_words_are_correct_when_they_are_the_same():
    task = tasks.get("pitch_movement")
    assert task.is_correct(task.parse("It tilts upward."), TaskValue(label="up"))
    assert not task.is_correct(task.parse("`down`"), TaskValue(label="up"))
