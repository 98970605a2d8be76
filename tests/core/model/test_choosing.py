"""Answers that are one of a few: always one of them, the likeliest at each fork; every task gives its own."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.model.choosing import ChoiceReader, CoordinateReader, chooser, coordinate_parts
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks.text import lettered

VOCABULARY, STOP = 12, 0
words = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5).map(lambda w: (*w, STOP))


def read(choices, logits_of):
    reader, said = ChoiceReader(choices), []
    while not said or said[-1] != STOP:
        said.append(reader.choose(logits_of(tuple(said))))
    return tuple(said)


@given(st.lists(words, min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_whatever_is_thought_the_answer_is_one_of_them(choices, seed):
    rng = np.random.default_rng(seed)
    assert read(choices, lambda _: rng.normal(size=VOCABULARY)) in choices


@given(st.lists(words, min_size=1, max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_thought_is_said_where_it_is_one_of_them(choices, data):
    thought = data.draw(st.sampled_from(choices))

    def logits(said):
        one = np.zeros(VOCABULARY)
        one[thought[len(said)]] = 5.0
        return one

    assert read(choices, logits) == thought


def test_an_inadmissible_token_is_passed_over_for_the_likelier_of_the_others():
    logits = np.array([0.0, 9.0, 2.0, 3.0])
    assert ChoiceReader([(2, STOP), (3, STOP)]).choose(logits) == 3


@pytest.fixture(scope="module")
def tokenizer(bundle_folder):
    return Tokenizer.from_file(str(bundle_folder / "tokenizer.json"))


def read_coordinate(tokenizer, logits_of):
    stop = tokenizer.get_vocab_size()
    parts = coordinate_parts(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, stop)
    reader, said = CoordinateReader(parts), []
    while not said or said[-1] != stop:
        said.append(reader.choose(logits_of(len(said), stop + 1)))
    return tokenizer.decode(said[:-1])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_whatever_is_thought_a_coordinate_is_said(tokenizer, seed):
    rng = np.random.default_rng(seed)
    said = read_coordinate(tokenizer, lambda _, width: rng.normal(size=width))
    values = tasks.get("visual_correspondence_coor_2_coor").parse_strictly(said).values
    assert all(0 <= value < 1000 for value in values)


@given(st.integers(0, 999), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_the_coordinate_that_is_thought_is_said(tokenizer, x, y):
    words = f"`[ {x} , {y} ]`"
    thought = tokenizer.encode(words, add_special_tokens=False).ids

    def logits(at, width):
        return 30.0 * np.eye(width)[thought[at] if at < len(thought) else width - 1]

    assert read_coordinate(tokenizer, logits) == words


def test_a_tokenizer_that_joins_x_and_y_leaves_coordinates_free(bundle_folder):
    whole = {}
    assert coordinate_parts(lambda text: [whole.setdefault(text, len(whole))], 0) is None
    model = SpatialModel.load(bundle_folder)
    model._coordinates = None
    thought = iter([*model._encode("`[ 250 , 500 ]`"), model._stop_id])
    model._chooser = lambda choices: lambda logits: next(thought)
    camera = CameraModel.from_fov(128, 96, hfov_rad=1.1)
    frames = tuple(Frame(i, "optical", np.zeros((96, 128, 3), np.uint8), camera) for i in (1, 2))
    answer = model.ask(AskRequest("visual_correspondence_coor_2_coor", frames, ((20.0, 80.0),)))
    assert answer.values == (32.0, 48.0)


def test_of_coordinates_the_one_near_most_others_is_said(tokenizer):
    """Nine neighbours of 300, each less likely than 800 alone, outweigh it."""
    value = {
        v: tokenizer.encode(f"`[ {v} , {v} ]`", add_special_tokens=False).ids[2]
        for v in (*range(296, 305), 800)
    }

    def logits(_, width):
        found = np.full(width, -9.0)
        found[list(value.values())] = 1.0
        found[value[800]] = 2.0
        return found

    assert read_coordinate(tokenizer, logits) == "`[ 300 , 300 ]`"


def test_a_model_of_random_thoughts_gives_a_pixel_of_the_image(bundle_folder):
    """What its decoder finds likeliest here is no coordinate at all."""
    model = SpatialModel.load(bundle_folder)
    camera = CameraModel.from_fov(128, 96, hfov_rad=1.1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 96, 128, 3), dtype=np.uint8)
    frames = tuple(Frame(i + 1, "optical", image, camera) for i, image in enumerate(images))
    decode = model._decode
    model._decode = lambda *given: replace(out := decode(*given), logits=rng.normal(size=out.logits.shape))
    answer = model.ask(AskRequest("visual_correspondence_coor_2_coor", frames, ((20.0, 80.0),)))
    assert answer.kind == "pixel" and 0 <= answer.values[0] < 128 and 0 <= answer.values[1] < 96


def test_any_answer_is_free_and_numbers_are_medians_where_they_have_a_width():
    free = chooser((), digits=0, encode=list, id_of=int, stop_id=STOP)
    assert free(np.array([0.0, 2.0, 1.0])) == 1
    ids = {c: i for i, c in enumerate("0123456789-+`")}
    median = chooser((), digits=1, encode=list, id_of=ids.__getitem__, stop_id=STOP)
    quote, digits = np.zeros(13), np.full(13, -9.0)
    quote[ids["`"]] = 5.0
    digits[:10] = [3, 0, 0, 2.9, 2.9, 0, 0, 0, 0, 0]
    assert median(quote) == ids["`"]
    assert median(digits) == 3  # the likeliest alone is 0


@pytest.mark.parametrize("name", tasks.names())
def test_every_choice_of_a_task_is_read_back_as_itself(name):
    task = tasks.get(name)
    points = ((120, 30), (880, 512))[: task.point_count]
    for variant in ("", *task.variants):
        choices = task.choices(points, variant=variant)
        if task.names_its_answer:
            assert [task.parse(c).values for c in choices] == [tuple(map(float, p)) for p in points]
        else:
            assert [task.parse(c).label for c in choices] == list(task.labels)
        assert bool(choices) == (task.kind == "label" or task.names_its_answer)


def test_comparisons_directions_and_the_multiple_choice_are_choices():
    named = {n for n in tasks.names() if tasks.get(n).choices(((0, 0), (1, 1))[: tasks.get(n).point_count])}
    assert named == {
        "depth_comparison_annotated", "depth_comparison_coordinate", "visual_correspondence_multiple_choice",
        "x_movement", "y_movement", "z_movement", "yaw_movement", "pitch_movement",
    }  # fmt: skip


@pytest.mark.parametrize("name", tasks.names())
def test_named_points_have_letters_and_other_choices_stay(name):
    task = tasks.get(name)
    points = ((120, 30), (880, 512))[: task.point_count]
    for template in range(len(task.answers)):
        choices = task.choices(points, template=template)
        said = lettered(choices)
        if not task.names_its_answer:
            assert said == choices
            continue
        values = (TaskValue(label="A"), TaskValue(label="B"))
        told = tuple(task.answers[template].format(value=value.label) for value in values)
        assert said == told and len(set(said)) == 2


def letters_bundle(folder, copy):
    """The shipped bundle, whose named points are told by letters, or not."""
    shutil.copytree(folder, copy)
    raw = json.loads((copy / "manifest.json").read_text())
    raw["prompt"]["named_letters"], raw["format_version"] = True, 4
    (copy / "manifest.json").write_text(json.dumps(raw))
    return SpatialModel.load(copy)


def test_a_letter_is_heard_as_the_point_that_it_stands_for(bundle_folder, tmp_path):
    """The published answer comes out, once, whichever letter the decoder finds likelier."""
    model = letters_bundle(bundle_folder, tmp_path / "copy")
    camera = CameraModel.from_fov(128, 96, hfov_rad=1.1)
    letters = []
    chosen = model._chooser
    model._chooser = lambda choices=(): letters.append(choices) or chosen(choices)
    for seed in range(6):
        image = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        points = ((20.0 + 9 * seed, 80.0), (100.0, 12.0 + 9 * seed))
        told = []
        ask = AskRequest("depth_comparison_coordinate", (Frame(seed + 1, "optical", image, camera),), points)
        answer = model.ask(ask, on_text=told.append)
        assert min(np.hypot(*np.subtract(answer.values, point)) for point in points) < 0.2
        assert told == [answer.text] and answer.text.startswith("`[ ")
    assert set(letters) == {("`A`", "`B`")}


def test_an_answer_that_is_cut_short_is_no_letter(bundle_folder, tmp_path):
    model = letters_bundle(bundle_folder, tmp_path / "copy")
    camera = CameraModel.from_fov(128, 96, hfov_rad=1.1)
    frame = Frame(1, "optical", np.zeros((96, 128, 3), np.uint8), camera)
    ask = AskRequest("depth_comparison_coordinate", (frame,), ((20.0, 80.0), (100.0, 12.0)), max_new_tokens=1)
    with pytest.raises(SpatialError) as fault:
        model.ask(ask)
    assert fault.value.code is ErrorCode.UNPARSABLE_ANSWER
