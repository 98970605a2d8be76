"""Numbers, coordinates and words: what the grammar writes it reads back; what models write is read or refused."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import TaskValue, reading, text

lengths = st.floats(-50.0, 50.0, allow_nan=False)


@given(lengths)
def test_a_length_comes_back_to_the_millimetre(value):
    assert reading.length_m(
        tasks.get("total_distance").answer_text(TaskValue((value,)), template=1)
    ) == pytest.approx(value, abs=0.000501)


@given(st.tuples(lengths, lengths, lengths))
def test_a_vector_comes_back_to_the_millimetre(vector):
    np.testing.assert_allclose(
        reading.vector_m(tasks.get("displacement_vector").answer_text(TaskValue(vector))),
        vector,
        atol=0.000501,
    )


@given(st.floats(-0.5, 639.5), st.floats(-0.5, 479.5))
def test_a_coordinate_comes_back_within_its_rounding(u, v):
    coordinate = reading.coordinate(text.format_coordinate(text.pixel_to_coordinate((u, v), 640, 480)))
    back = text.coordinate_to_pixel(coordinate, 640, 480)
    # half a step of the scale, or half a pixel at the border that the scale begins with
    assert abs(back[0] - u) <= max(640 / 2000, 0.5) + 1e-9
    assert abs(back[1] - v) <= max(480 / 2000, 0.5) + 1e-9


def refused(read, *arguments, **options) -> None:
    with pytest.raises(SpatialError) as fault:
        read(*arguments, **options)
    assert fault.value.code is ErrorCode.UNPARSABLE_ANSWER


# -- lengths and angles -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "metres"),
    [
        ("`1150`", 1.15),
        ("1150 mm", 1.15),
        ("The depth is `1150` mm.", 1.15),
        ("It is about 1,150 millimetres away.", 1.15),
        ("1.15 m", 1.15),
        ("115cm", 1.15),
        ("1.15e3", 1.15),
        (".5 m", 0.5),
        ("about 5 feet", 1.524),
        ("-5 mm", -0.005),
        # the unit that stands behind the backticks counts
        ("`1.15` m", 1.15),
        ("`1.15 m`", 1.15),
        ("```\n1150\n```", 1.15),
        # backticks and units win over other numbers; names of images and named pixels are none
        ("In Image-1 the answer is `20`.", 0.02),
        ("In Image-1 the depth is 20 mm", 0.02),
        ("From image 1 to image 2 it went 20", 0.02),
        ("The depth of the point at [ 512 , 340 ] is 1150 mm", 1.15),
        ("The depth of `A` is `20` mm", 0.02),
        ("Point 1 is 20 mm away", 0.02),
        ("The 3D distance is 20 mm", 0.02),
        ("The answer is `20` mm, not 30 mm", 0.02),
        ("First I saw 3 chairs.\nAnswer: 20", 0.02),
        # Markdown and LaTeX
        ("**1150** mm", 1.15),
        (r"\boxed{1150}", 1.15),
        (r"$1.15\,\text{m}$", 1.15),
        # one length, said twice
        ("1150 mm (1.15 m)", 1.15),
        ("1.15 m (3.8 feet)", 1.15),
        ("`20` or `20`", 0.02),
    ],
)
def test_lengths_as_models_write_them(answer, metres):
    assert reading.length_m(answer) == pytest.approx(metres, abs=1e-12)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "far away",
        "two hundred mm",
        "I cannot tell.",
        "between 10 and 20",
        "between 10 and 20 mm",
        "10-20 mm",
        "10 to 20 mm",
        "10 mm or 20 mm",
        "20 mm ± 5 mm",
        "1.15 m (5 feet)",
        "`nan`",
        "`1e999`",
        "`12` or `13 14`",
        "`20`, later `30`",
        "1,15 m",  # a decimal comma, or two numbers
        "1 150 mm",  # a thousands space, or two numbers
    ],
)
def test_d63_text_without_one_number_is_refused(answer):
    refused(reading.length_m, answer)


@pytest.mark.parametrize(
    ("answer", "degrees"),
    [
        ("`12`", 12.0),
        ("12°", 12.0),
        ("12 degrees", 12.0),
        ("about 12 deg.", 12.0),
        ("The camera turned 12 degrees between Image-1 and Image-2.", 12.0),
        ("$12^\\circ$", 12.0),
        ("12.4 degrees", 12.4),
        ("-12 degrees", -12.0),
        ("0.5 rad", 28.6478897565),
        ("12 degrees (0.209 rad)", 12.0),
        ("`0`", 0.0),
    ],
)
def test_angles_as_models_write_them(answer, degrees):
    assert reading.angle_deg(answer) == pytest.approx(degrees)


@pytest.mark.parametrize(
    "answer", ["", "a quarter turn", "10 to 12 degrees", "yaw 3 degrees, pitch 4 degrees", "12 13"]
)
def test_text_without_one_angle_is_refused(answer):
    refused(reading.angle_deg, answer)


# -- vectors and coordinates --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "[120, -35, 4]",
        "`[120, -35, 4]` mm.",
        "(120, -35, 4)",
        "[120 -35 4]",
        "[120; −35; 4]",
        "[0.12, -0.035, 0.004] m",
        "`[0.12, -0.035, 0.004]` metres",
        "[120 mm, -35 mm, 4 mm]",
        "[x=120, y=-35, z=4]",
        "x = 120, y = -35, z = 4",
        "x: 120 mm, y: -35 mm, and z: 4 mm",
        "120, -35, 4",
        "For [ 512 , 340 ] it is [120, -35, 4]",
        "[120, -35, 4] mm, that is [0.12, -0.035, 0.004] m",
    ],
)
def test_vectors_as_models_write_them(answer):
    assert reading.vector_m(answer) == pytest.approx((0.12, -0.035, 0.004))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[1, 2]",
        "[1, 2, 3, 4]",
        "[a, b, c]",
        "[1e999, 0, 0]",
        "1, 2",
        "[1,150, 35, 4]",
        "from [0, 0, 0] to [1, 2, 3]",
    ],
)
def test_vectors_of_the_wrong_shape_are_refused(answer):
    refused(reading.vector_m, answer)


@pytest.mark.parametrize(
    ("answer", "coordinate"),
    [
        ("[ 363 , 70 ]", (363, 70)),
        ("[363,70]", (363, 70)),
        ("(363, 70)", (363, 70)),
        ("x=363, y=70", (363, 70)),
        ("The point [ 512 , 340 ] in Image-1 corresponds to [ 363 , 70 ] in Image-2.", (363, 70)),
        ("`[ 512 , 340 ]` corresponds to `[ 363 , 70 ]`", (363, 70)),
        ("[ 363 , 70 ] is the match of [ 512 , 340 ]", (363, 70)),
        ("The answer is [ 363 , 70 ].", (363, 70)),
    ],
)
def test_coordinates_as_models_write_them(answer, coordinate):
    assert reading.coordinate(answer) == coordinate


@pytest.mark.parametrize(
    "answer",
    ["[1,2] is closer than [3,4]", "Of [1,2] and [3,4], [1,2] is closer", "`[1,2]`", "[1,2], not [3,4]"],
)
def test_a_choice_of_two_coordinates_is_the_one_that_is_not_compared_with(answer):
    assert reading.coordinate(answer, is_choice=True) == (1, 2)


@pytest.mark.parametrize("answer", ["[1,2] is closer; [3,4] is farther", "[1,2] or [3,4]", "the first one"])
def test_a_choice_of_both_coordinates_is_refused(answer):
    refused(reading.coordinate, answer, is_choice=True)


@pytest.mark.parametrize(
    "answer", ["[ 1200 , 3 ]", "[ -1 , 3 ]", "[ 1 ]", "", "[ 1 , 2 , 3 ]", "left of the chair"]
)
def test_coordinates_outside_the_scale_are_refused(answer):
    refused(reading.coordinate, answer)


# -- words and letters --------------------------------------------------------------------------------

LETTERS = ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("`B`", "B"),
        ("`(B)`", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("b", "B"),
        ("(a)", "A"),
        ("A", "A"),
        ("The answer is B", "B"),
        ("The answer is: B. A lies on the wall.", "B"),
        ("Answer: (C)", "C"),
        ("**D**", "D"),
        (r"\boxed{D}", "D"),
        ("<answer>B</answer>", "B"),
        ("Option C is right", "C"),
        ("The point is A.", "A"),
        ("A corresponds to the point of Image-1.", "A"),
        # an article is no letter, nor is the first letter of a word
        ("A closer look shows that it is B", "B"),
        ("The dot on a chair is D", "D"),
        ("Both views show C", "C"),
        # what an answer is compared with is no answer
        ("A is closer to the camera than B", "A"),
        ("Dot `A` is closer than dot `B`", "A"),
        ("Of A, B, C and D, the match is C.", "C"),
        ("Not A but B", "B"),
        ("B rather than D", "B"),
        ("It is B, because A lies too far left", "B"),
    ],
)
def test_letters_as_models_write_them(answer, letter):
    assert reading.word(answer, LETTERS) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "The dot on the table",
        "A chair is in both images.",
        "It is a point on the table",
        "Because both look alike",
        "A, B, C or D",
        "B and C",
        "B or C",
        "It isn't A.",
        "ABCD",
        "E",
    ],
)
def test_text_without_one_letter_is_refused(answer):
    refused(reading.word, answer, LETTERS)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("It moved `left`.", "left"),
        ("Right!", "right"),
        ("LEFT", "left"),
        ("leftwards", "left"),
        ("To the left side", "left"),
        ("The right answer is left.", "left"),
        ("Left or right? It moved left.", "left"),
        ("between `left` and `right` I choose `left`", "left"),
        ("It moved right, not left", "right"),
        ("It did not move left but right", "right"),
        ("It is not clear, but the camera moved left.", "left"),
    ],
)
def test_words_as_models_write_them(answer, word):
    assert reading.word(answer, ("left", "right")) == word


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "left or right",
        "leftover",
        "upright",
        "The camera did not move left.",
        "It doesn’t go to the left",
    ],
)
def test_words_must_be_unambiguous(answer):
    refused(reading.word, answer, ("left", "right"))


def test_words_with_and_without_their_endings():
    assert reading.word("It tilts upwards.", ("up", "down")) == "up"
    assert reading.word("It went backwards", ("forward", "backward")) == "backward"


# -- the published extraction -------------------------------------------------------------------------


def test_the_published_extraction_takes_the_last_backticks():
    assert reading.strictly_whole("First `10`, then `-20` mm.") == -20
    assert reading.strictly_integers("`[ 1 , 2 ]`", 2) == (1, 2)
    assert reading.strictly_integers("`[1, -2, 3]` mm", 3) == (1, -2, 3)
    assert reading.strictly_word("It is `A`.", ("A", "B")) == "A"


@pytest.mark.parametrize(
    "answer",
    [
        "20",
        "20 mm",
        "`20 mm`",
        "`20.5`",
        "`about 20`",
        "``",
        "`20` or `none`",
        f"`{'9' * 400}`",
        f"`{'9' * 6000}`",
    ],
)
def test_the_published_extraction_takes_no_other_number(answer):
    refused(reading.strictly_whole, answer)


@pytest.mark.parametrize(
    "answer",
    ["[1, 2, 3]", "`(1, 2, 3)`", "`1, 2, 3`", "`[1, 2]`", "`[1.0, 2, 3]`", f"`[{'9' * 6000}, 2, 3]`"],
)
def test_the_published_extraction_takes_no_other_vector(answer):
    refused(reading.strictly_integers, answer, 3)


@pytest.mark.parametrize("answer", ["A", "`a`", "`(A)`", "`A.`", "`AB`", "`E`"])
def test_the_published_extraction_takes_no_other_letter(answer):
    refused(reading.strictly_word, answer, LETTERS)


# -- any text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece",
    [
        "A, ",
        "1 ",
        "[",
        "`",
        "not ",
        "(1,2",
        "1,",
        r"\text{",
        "x=1,y",
        "answer is ",
        "123",
        "A and ",
        " ",
        "[1,2] ",
        "(1, 2, 3) mm ",
    ],
)
def test_a_long_answer_takes_no_long_time(piece):
    """Each pattern is linear in the text, or a hostile answer would stop a node."""
    answer = piece * 30_000
    began_s = time.process_time()
    for read in (reading.length_m, reading.vector_m, reading.coordinate, lambda a: reading.word(a, LETTERS)):
        with contextlib.suppress(SpatialError):
            read(answer)
    assert time.process_time() - began_s < 5.0
