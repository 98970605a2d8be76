"""Rows become packed samples: every row once an epoch, cameras kept, bad rows named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.augment import AugmentConfig
from spatial_mllm_training.data.depth_truth import DepthTruth
from spatial_mllm_training.data.packing import IGNORE
from spatial_mllm_training.data.rows_stream import RowSource
from spatial_mllm_training.data.served_words import served_answer, served_question
from spatial_mllm_training.multispa.rows import read_rows
from spatial_mllm_training.recipes.config import RowsConfig
from spatial_mllm_training.sources.simulated import find_scenes
from spatial_mllm_training.training_loop.batch import collate


def answers(sample, tokenizer):
    """What each question of a sample is to be answered with."""
    found = []
    for number in range(len(sample.images) + 1, int(sample.owner.max()) + 1):
        labels = sample.labels[sample.owner == number]
        found.append(tokenizer.decode(labels[labels != IGNORE].tolist()).strip())
    return found


def test_every_row_is_asked_once_an_epoch_with_its_own_images(made, form, viewer, tokenizer):
    source = RowSource([made], form, viewer, RowsConfig(questions=3), 5)
    rows = list(read_rows(made))
    expected = Counter(row.answer for row in rows)
    for epoch in (0, 1):
        samples = [source.sample(epoch * source.packs + i) for i in range(source.packs)]
        assert Counter(a for s in samples for a in answers(s, tokenizer)) == expected
    assert [s.name for s in samples] != [source.sample(i).name for i in range(source.packs)]
    by_id = {row.id: row for row in rows}
    for sample in samples:
        row = by_id[sample.name.removeprefix("row ")]
        assert len(sample.images) == len(row.image)
        words = tokenizer.decode(sample.ids[sample.owner == len(row.image) + 1].tolist())
        assert "<image>" not in words


def test_rays_are_those_of_opencv(made, form, viewer):
    source = RowSource([made], form, viewer, RowsConfig(), 5)
    by_id = {row.id: row for row in read_rows(made)}
    for number in range(4):
        sample = source.sample(number)
        row = by_id[sample.name.removeprefix("row ")]
        for image, k, (width, height) in zip(sample.images, row.spatial.k, row.spatial.size, strict=True):
            rows, columns = image.grid
            u, v = np.meshgrid(
                (np.arange(columns) + 0.5) * width / columns - 0.5,
                (np.arange(rows) + 0.5) * height / rows - 0.5,
            )
            pixels = np.stack([u, v], -1).reshape(-1, 1, 2)
            expected = cv2.undistortPoints(pixels, np.reshape(k, (3, 3)), None)[:, 0]
            np.testing.assert_allclose(image.rays[:, :2], expected, atol=1e-5)


def test_depth_of_the_source_reaches_the_heads(made, form, viewer):
    from pathlib import Path

    fixtures = Path(__file__).parents[2] / "fixtures" / "simulated"
    depth = DepthTruth(find_scenes(fixtures))
    source = RowSource([made], form, viewer, RowsConfig(), 5, depth=depth)
    by_id = {row.id: row for row in read_rows(made)}
    checked = 0
    for number in range(source.packs):
        sample = source.sample(number)
        row = by_id[sample.name.removeprefix("row ")]
        for point in row.spatial.points:
            target = sample.targets[point.image]
            _, h, w = target.depth.shape
            width, height = row.spatial.size[point.image]
            cell = int((point.v_px + 0.5) * h / height), int((point.u_px + 0.5) * w / width)
            if abs(target.depth[0][cell] - point.depth_m) < 0.05 * point.depth_m:  # not beside an edge
                pose = np.reshape(row.spatial.world_from_camera[0], (4, 4))
                where = pose[:3, :3] @ target.points[0][cell] + pose[:3, 3]
                assert np.linalg.norm(where - point.point_in_world_m) < 0.08 * point.depth_m + 0.02
                checked += 1
    assert checked > 10
    batch = collate([source.sample(0), source.sample(1)], 0, maps=True)
    assert np.isfinite(batch.groups[0].targets().points.numpy()).any()


def test_a_share_of_the_rows_keeps_its_images_without_answers(made, form, viewer):
    def asked(share):
        source = RowSource([made], form, viewer, RowsConfig(questions=1, answers_share=share), 5)
        samples = [source.sample(i) for i in range(source.packs)]
        assert all(s.images for s in samples)
        return {s.name for s in samples if (s.labels != IGNORE).any()}

    none, half, every = asked(0.0), asked(0.5), asked(1.0)
    assert not none and len(every) == len(list(read_rows(made)))
    assert half < every and 0.2 < len(half) / len(every) < 0.8


def test_augmented_rows_share_their_images_and_stay_right(made, form, viewer):
    config = RowsConfig(augment=AugmentConfig(colour_chance=0.0))
    source = RowSource([made], form, viewer, config, 5)
    plain = RowSource([made], form, viewer, RowsConfig(), 5)
    kept = total = 0
    for number in range(source.packs):
        sample, other = source.sample(number), plain.sample(number)
        assert sample.name == other.name and sample.images[0].has_camera
        again = source.sample(number)
        np.testing.assert_array_equal(sample.images[0].pixels, again.images[0].pixels)
        kept += int(sample.owner.max()) - len(sample.images)
        total += int(other.owner.max()) - len(other.images)
    assert total == len(list(read_rows(made))) and kept >= source.packs


def without_k(row):
    return replace(row, spatial=replace(row.spatial, k=()))


FAULTS = {
    "no K": (without_k, "has no K for each of its"),
    "K of another size": (
        lambda row: replace(
            row, spatial=replace(row.spatial, size=tuple((w * 2, h * 2) for w, h in row.spatial.size))
        ),
        "px but its K is for",
    ),
    "image that is not there": (
        lambda row: replace(row, image=("no.jpg",) * len(row.image)),
        "no.jpg' is not there",
    ),
    "answer that does not parse": (
        lambda row: replace(row, answer="I do not know"),
        "its answer does not parse",
    ),
    "too long": (lambda row: replace(row, question=row.question + " and" * 5000), "tokens, at most"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_named_in_a_sentence(fault, rewritten, form, viewer):
    change, words = FAULTS[fault]
    source = RowSource([rewritten(change)], form, viewer, RowsConfig(questions=1), 5)
    with pytest.raises(SpatialError, match=words) as caught:
        source.sample(0)
    assert caught.value.sentence.startswith("row '") and "\n" not in caught.value.sentence


def test_an_image_that_does_not_open_is_named(made, rewritten, form, viewer):
    folder = rewritten(lambda row: row)
    for file in (folder / "images").rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(SpatialError, match=r"row '.*jpg' is not an image that opens"):
        RowSource([folder], form, viewer, RowsConfig(), 5).sample(0)


def test_a_row_without_k_gets_no_camera_where_the_recipe_allows_it(rewritten, form, viewer):
    source = RowSource([rewritten(without_k)], form, viewer, RowsConfig(require_camera=False), 5)
    assert not source.sample(0).images[0].has_camera


def test_nan_in_depth_is_no_truth(made, form, viewer):
    class Blind(DepthTruth):
        def of_row(self, row):
            return [np.full((h, w), np.nan, np.float32) for w, h in row.spatial.size]

    sample = RowSource([made], form, viewer, RowsConfig(), 5, depth=Blind([])).sample(0)
    assert all(np.isnan(t.depth).all() for t in sample.targets)


def test_without_rows_it_says_what_to_run(tmp_path, form, viewer):
    with pytest.raises(SpatialError, match="make_multispa"):
        RowSource([tmp_path], form, viewer, RowsConfig(), 5)


def test_the_share_of_served_words_is_asked_as_the_runtime_asks(made, form, viewer, tokenizer):
    by_id = {row.id: row for row in read_rows(made)}

    def asked(share):
        source = RowSource([made], form, viewer, RowsConfig(questions=1, served_words=share), 5)
        found = {}
        for number in range(source.packs):
            sample = source.sample(number)
            words = tokenizer.decode(sample.ids[sample.owner == len(sample.images) + 1].tolist())
            row = by_id[sample.name.removeprefix("row ")]
            found[row.id] = words.startswith(served_question(row)) and served_answer(row) in words
        return found

    assert all(asked(1.0).values()) and len(asked(1.0)) == len(by_id)
    assert not any(asked(0.0).values())
    assert 0.2 < np.mean(list(asked(0.5).values())) < 0.8


def test_a_source_teaches_the_subtasks_whose_answers_it_uses(made, form, viewer):
    def taught(share):
        return RowSource([made], form, viewer, RowsConfig(answers_share=share), 5).subtasks()

    assert taught(1.0) == {row.question_type for row in read_rows(made)}
    assert taught(0.0) == frozenset()
