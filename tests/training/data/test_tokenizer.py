"""The tokens of the small bundle: every wording of every subtask, whole coordinates, digits of values."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks.object_size import MAX_IMAGES
from spatial_mllm_training.data.tokenizer import CATEGORIES, number_tokens

SCENES = sorted((Path(__file__).parents[2] / "fixtures" / "simulated").glob("scene_*.npz"))
NOT_ASKED = re.compile("world|robot ")
POINTS = ((0, 999), (7, 85))
TRUTHS = {
    "scalar": [TaskValue((v,)) for v in (0.0, 0.009, 1.234, 12.345)],
    "angle": [TaskValue((v,)) for v in (0.0, 7.0, 179.0)],
    "vector": [TaskValue((-1.2, 0.034, 5.0)), TaskValue((0.0, 0.0, 0.0))],
    "coordinate": [TaskValue((float(x), float(y))) for x, y in ((0, 999), (7, 85), (500, 12))],
}


def truths_of(task):
    return [TaskValue(label=word) for word in task.labels] or TRUTHS[task.kind]


def pieces(tokenizer, text):
    """The texts of the tokens, which together are the text."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return [tokenizer.decode([i]) for i in ids]


@pytest.mark.parametrize("name", tasks.names())
def test_every_template_of_every_variant_comes_back_whole(tokenizer, name):
    """Encoding loses nothing, and no word of a template is spelled in pieces."""
    task = tasks.get(name)
    points = POINTS[: task.point_count]
    for wording, category in itertools.product(task.wordings, ("chair", "samovar")):
        texts = [
            task.question(points, template=i, variant=wording.variant, category=category)
            for i in range(len(wording.questions))
        ]
        texts += [
            task.answer_text(truth, template=i, variant=wording.variant, category=category)
            for i in range(len(wording.answers))
            for truth in truths_of(task)
        ]
        texts += [
            task.prompt(
                task.max_frame_count, points, templates=(i, 0), variant=wording.variant, category=category
            ).rpartition("<image>\n")[2]
            for i in range(len(task.descriptions))
        ]
        for text in texts:
            parts = pieces(tokenizer, text)
            assert "".join(parts) == text
            split = set(re.findall(r"[A-Za-z]+", text)) - {part.strip() for part in parts}
            assert split <= {"samovar"}, text


@pytest.mark.parametrize("name", [n for n in tasks.names() if tasks.get(n).kind == "coordinate"])
def test_every_number_of_a_coordinate_answer_is_one_token(tokenizer, name):
    task = tasks.get(name)
    numbers = number_tokens(tokenizer)
    assert list(numbers) == list(range(1000))
    for template, n in itertools.product(range(len(task.answers)), range(1000)):
        pair = (n, 999 - n)
        text = task.answer_text(TaskValue((float(pair[0]), float(pair[1]))), template=template)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        said = ids[[tokenizer.id_to_token(i).strip("Ġ") for i in ids].index("[") :]
        assert [i for i in said if i in numbers.values()] == [numbers[c] for c in pair]


@pytest.mark.parametrize(
    "name", [n for n in tasks.names() if tasks.get(n).kind in ("scalar", "angle", "vector")]
)
def test_values_are_spelled_digit_by_digit(tokenizer, name):
    task = tasks.get(name)
    for template in range(len(task.answers)):
        for truth in truths_of(task):
            parts = pieces(tokenizer, task.answer_text(truth, template=template))
            assert all(len(re.findall(r"\d", part)) <= 1 for part in parts)


def test_it_stays_small_and_learned_all_it_was_shown(tokenizer, build_again):
    """The bound on its size did not cut the learning short, and it is the same at every call."""
    assert tokenizer.get_vocab_size() < 3000
    assert tokenizer.to_str() == build_again().to_str()


def test_images_are_counted_in_whole_tokens(tokenizer):
    for n in range(1, MAX_IMAGES + 1):
        parts = pieces(tokenizer, f"Image-{n}: <|vision_start|>")
        assert parts[0] == "Image" and str(n) in parts


def test_categories_of_the_stored_rows_and_scenes_are_known(tokenizer, stored_rows):
    found = {row.spatial.category for row in stored_rows if row.spatial.category}
    for scene in SCENES:
        found |= {name for name in np.load(scene)["body_category"].tolist() if not NOT_ASKED.match(name)}
    assert len(found) > 10
    for category in found:
        assert set(category.split()) <= set(CATEGORIES)
        assert [p.strip() for p in pieces(tokenizer, f" {category}")] == category.split()
