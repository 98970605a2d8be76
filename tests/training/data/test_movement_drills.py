"""Drills about two images: what is told of them is what the answers say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from spatial_mllm_core import tasks
from spatial_mllm_core.model.digits import DIGITS, SCALE
from spatial_mllm_core.model.told import COUNT, code
from spatial_mllm_training.data.drills import DrillSource
from spatial_mllm_training.data.movement_drills import movement_question
from spatial_mllm_training.model.matcher import MatcherSize
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import MixConfig
from spatial_mllm_training.training_loop.batch import Batch, collate
from spatial_mllm_training.training_loop.prompts import embedded
from spatial_mllm_training.training_loop.setup import DataPaths, build_learner, build_sources, pair_builder

SCENES = sorted((Path(__file__).parents[2] / "fixtures" / "simulated").glob("scene_*.npz"))


@pytest.fixture(scope="module")
def learner():
    smoke = RECIPES["smoke"]()
    matcher = MatcherSize(stem=8, channels=16, dilations=(1,), features=16)
    model = dataclasses.replace(smoke.model, pointers=True, deep_pointers=True, matcher=matcher)
    return build_learner(dataclasses.replace(smoke, model=model))


def metres(number):
    """Inverse of the scale of signed lengths, from its definition: 500 is 0 m, 1000 is 8 m, 2 cm is the finest."""
    share = (number - 500) / 500
    return np.sign(share) * 0.02 * (401 ** abs(share) - 1)


def degrees(number):
    share = (number - 500) / 500
    return np.sign(share) * (181 ** abs(share) - 1)


def questions(name, count=400):
    """(what is told, parsed answer) of the drills of one task."""
    rng = np.random.default_rng(0)
    found = []
    task = tasks.get(name)
    for _ in range(count):
        question = movement_question(rng, served_words=1.0)
        ((words, answer),) = question.turns
        if "{" not in task.questions[0]:
            is_it = words == task.question(())
        else:
            head = task.questions[0].split("{")[0]
            tail = task.questions[0].rsplit("}", 1)[1]
            is_it = "[" in words and words.startswith(head) and words.endswith(tail)
        if is_it:
            found.append((question.told_pair, task.parse(answer)))
    assert len(found) > 10
    return found


@pytest.mark.parametrize(("name", "axis"), [("x_movement", 0), ("y_movement", 1), ("z_movement", 2)])
def test_directions_are_the_signs(name, axis):
    plus, minus = tasks.get(name).labels
    for told, answer in questions(name):
        assert answer.label == (plus if told.shares[axis] > 500 else minus)


@pytest.mark.parametrize(("name", "at"), [("yaw_movement", 4), ("pitch_movement", 5)])
def test_turns_are_the_signs_of_their_angles(name, at):
    plus, minus = tasks.get(name).labels
    for told, answer in questions(name):
        assert answer.label == (plus if told.shares[at] > 500 else minus)


@pytest.mark.parametrize(("name", "at"), [("yaw_angle", 4), ("pitch_angle", 5)])
def test_angles_are_told_in_degrees(name, at):
    for told, answer in questions(name):
        assert answer.values[0] == pytest.approx(abs(degrees(told.shares[at])), abs=0.51)


@pytest.mark.parametrize(
    ("name", "start"), [("displacement_vector", 0), ("tapvid3d_displacement_vector_coord_adt", 4)]
)
def test_vectors_are_told_in_metres(name, start):
    for told, answer in questions(name):
        np.testing.assert_allclose(
            answer.values, [metres(n) for n in told.shares[start : start + 3]], atol=6e-4
        )


@pytest.mark.parametrize(
    ("name", "at"), [("total_distance", 3), ("tapvid3d_total_distance_coord_pstudio", 7)]
)
def test_lengths_are_told_by_their_logarithm(name, at):
    for told, answer in questions(name):
        told_m = 0.005 * 1600 ** (told.shares[at] / 1000)
        if told_m < 0.006:  # the shortest length that is told stands for none
            told_m = 0.0
        assert answer.values[0] == pytest.approx(told_m, rel=0.02, abs=6e-4)


def test_places_are_told_as_they_are_said():
    for told, answer in questions("visual_correspondence_coor_2_coor"):
        np.testing.assert_allclose(answer.values, told.shares[:2], atol=0.51)


@pytest.mark.parametrize(
    ("name", "at", "unit"),
    [
        ("total_distance", [3], 1000),
        ("displacement_vector", [0, 1, 2], 1000),
        ("yaw_angle", [4], 1),
        ("pitch_angle", [5], 1),
        ("visual_correspondence_coor_2_coor", [0, 1], 1),
        ("tapvid3d_total_distance_coord_pstudio", [7], 1000),
        ("tapvid3d_displacement_vector_coord_adt", [4, 5, 6], 1000),
    ],
)
def test_what_is_told_in_digits_is_what_answers_spell(name, at, unit):
    for told, answer in questions(name):
        spelled = [told.spelled[i] for i in at]
        np.testing.assert_allclose(np.abs(answer.values) * unit, spelled, atol=1e-6)


@torch.no_grad()
def test_the_decoder_hears_them_at_the_first_word(learner, tmp_path):
    source = DrillSource(learner.form, 0, served_words=0.5, movements=True)
    batch = collate([source.sample(1), source.sample(3), source.sample(4)], learner.pad_id)
    heard = embedded(learner.model, batch).embeds - learner.model.hf.get_input_embeddings()(batch.ids)
    assert batch.told_numbers.shape == (16, 2, COUNT)
    rows = batch.told_pairs[:, 0].tolist()
    assert set(rows) == {0, 1}  # the third one is about depths
    expected = torch.zeros_like(heard)
    for (row, token), numbers in zip(batch.told_pairs.tolist(), batch.told_numbers.tolist(), strict=True):
        assert token == 0 or batch.positions[0, row, token] == 0 < batch.positions[0, row, token - 1]
        expected[row, token] = torch.from_numpy(code(tuple(numbers[0]), heard.shape[-1]))
    torch.testing.assert_close(heard[:2], expected[:2], atol=1e-5, rtol=0)
    batch.save(tmp_path / "batch.safetensors")
    again = Batch.read(tmp_path / "batch.safetensors")
    assert torch.equal(again.told_pairs, batch.told_pairs)
    torch.testing.assert_close(again.told_numbers, batch.told_numbers, equal_nan=True)
    old = {**load_file(tmp_path / "batch.safetensors"), "told_numbers": batch.told_numbers[:, 0].contiguous()}
    save_file(old, tmp_path / "old.safetensors")
    before = Batch.read(tmp_path / "old.safetensors").told_numbers
    torch.testing.assert_close(before[:, 0], batch.told_numbers[:, 0], equal_nan=True)
    assert before.shape == batch.told_numbers.shape and before[:, 1].isnan().all()


@pytest.mark.parametrize("matcher", [None, MatcherSize(stem=8, channels=16, dilations=(1,), features=16)])
def test_only_a_model_of_matching_is_drilled_in_movements(matcher):
    smoke = RECIPES["smoke"]()
    model = dataclasses.replace(smoke.model, pointers=True, deep_pointers=True, matcher=matcher)
    config = dataclasses.replace(smoke, model=model, mix=MixConfig(pairs=0.0, drills=1.0))
    sources, _, _ = build_sources(config, DataPaths(), build_learner(config))
    told = [len(sources["drills"].sample(number).told_pairs) for number in range(4)]
    assert told == ([0, 8, 8, 8] if matcher else [0, 0, 0, 0])


def test_drills_behind_images_are_told_what_they_say_and_not_what_is_seen(learner):
    """They see both images, and carry their own numbers where other questions carry those of the images."""
    smoke = RECIPES["smoke"]()
    plain, drilled = (
        pair_builder(smoke, learner)(
            SCENES, config=dataclasses.replace(smoke.data, still_camera=0.0, told_questions=count)
        ).sample(np.random.default_rng(3))
        for count in (0, 3)
    )
    assert drilled.pairs == plain.pairs and not plain.told_pairs and len(drilled.told_pairs) == 3
    size = len(plain.ids)
    assert np.array_equal(drilled.ids[:size], plain.ids)
    for token, told in drilled.told_pairs:
        assert token >= size and len(told.shares) == len(told.spelled) == COUNT
        assert drilled.owner[token] > drilled.owner[token - 1] and drilled.seen[token] == 2
        assert drilled.positions[0, token] > drilled.positions[0, :size].min()
    batch = collate([drilled], learner.pad_id)
    shown = embedded(learner.model.eval(), batch).embeds
    without = embedded(learner.model, dataclasses.replace(batch, told_pairs=batch.told_pairs[:0])).embeds
    for (_, token), (_, told) in zip(batch.told_pairs.tolist(), drilled.told_pairs, strict=True):
        carried = (shown - without)[0, token].detach()
        expected = torch.from_numpy(code(told.shares, len(carried)))
        torch.testing.assert_close(carried, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_digits_of_what_is_told_come_with_the_answer():
    """Read off the embeddings of the answers of drills, of depths and of movements, by the codes' own harmonics."""
    smoke = RECIPES["smoke"]()
    matcher = MatcherSize(stem=8, channels=16, dilations=(1,), features=16)
    model = dataclasses.replace(
        smoke.model, pointers=True, deep_pointers=True, matcher=matcher, told_digits=True
    )
    learner = build_learner(dataclasses.replace(smoke, model=model, number_digits=DIGITS))
    source = DrillSource(learner.form, 0, served_words=0.5, movements=True)
    batch = collate([source.sample(1), source.sample(4)], learner.pad_id)
    heard = embedded(learner.model, batch).embeds
    learner.model.told_digits = False
    digits = (heard - embedded(learner.model, batch).embeds).numpy()
    assert not digits[batch.places.numpy() < 0].any()
    known = {}
    for (row, token), told in zip(batch.told_pairs.tolist(), batch.told_numbers[:, 1].tolist(), strict=True):
        known[int(batch.owners[row, token])] = told
    depths = {}
    for (row, token), depth_m in zip(batch.told.tolist(), batch.told_m.tolist(), strict=True):
        depths.setdefault(int(batch.owners[row, token]), []).append(round(1000 * depth_m))
    assert len(known) == len(depths) == 8
    for row, token in (batch.places >= 0).nonzero().tolist():
        owner, place = int(batch.owners[row, token]), int(batch.places[row, token])
        numbers = known.get(owner) or [*depths[owner], *[np.nan] * (COUNT - len(depths[owner]))]
        expected = np.zeros(digits.shape[-1])
        for n, number in enumerate(numbers):
            if np.isfinite(number):
                angle = 2 * np.pi * int(f"{int(number):05d}"[place]) / 10 * np.arange(1, 5)
                expected[8 * n : 8 * n + 8] = SCALE * np.concatenate([np.sin(angle), np.cos(angle)])
        np.testing.assert_allclose(digits[row, token], expected, atol=1e-5)


def test_only_a_model_of_matching_is_told_behind_images():
    smoke = RECIPES["smoke"]()
    with pytest.raises(ValueError, match="with a matcher alone"):
        dataclasses.replace(smoke, data=dataclasses.replace(smoke.data, told_questions=1))
