"""Parts of data sets: the half that a run answers, and equal groups."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.ablate.row_sets import balanced, is_answered, write_part
from spatial_mllm_training.data.packing import IGNORE
from spatial_mllm_training.data.pictures import Viewer
from spatial_mllm_training.data.rows_stream import RowSource
from spatial_mllm_training.multispa.rows import read_rows
from spatial_mllm_training.training_loop.setup import build_learner


def test_the_half_is_the_one_that_a_run_of_this_seed_answers(rows, tiny):
    """Against the labels of the training's own samples."""
    learner = build_learner(tiny)
    config = dataclasses.replace(tiny.rows, questions=1, answers_share=0.5)
    viewer = Viewer(learner.model.framing, learner.model.processing, config.size)
    source = RowSource((rows,), learner.form, viewer, config, 3)
    ids = [row.id for row in read_rows(rows)]
    assert source.packs == len(ids)
    answered = set()
    for number in range(source.packs):
        sample = source.sample(number)
        if (sample.labels != IGNORE).any():
            answered.add(sample.name.removeprefix("row "))
    assert answered == {i for i in ids if is_answered(i, seed=3, share=0.5)}
    assert 0 < len(answered) < len(ids)


def test_a_part_is_a_data_set_with_its_images(rows, tmp_path):
    (part,) = write_part([rows], tmp_path / "part", lambda row: row.question_type == "total_distance")
    found = list(read_rows(part))
    assert found == [row for row in read_rows(rows) if row.question_type == "total_distance"]
    assert all((part / "images" / name).is_file() for row in found for name in row.image)
    before = (part / "rows-00000.parquet").stat().st_mtime_ns
    assert write_part([rows], tmp_path / "part", lambda row: False) == (part,)  # kept
    assert (part / "rows-00000.parquet").stat().st_mtime_ns == before


def test_groups_get_equal_rows(rows):
    few = {row.id for row in read_rows(rows)}
    keeps = balanced([rows])
    counts = Counter(tasks.get(r.question_type).group for r in read_rows(rows) if keeps(r))
    assert len(counts) == 3 and len(set(counts.values())) == 1
    alone = balanced([rows], "depth_value")
    kept = {r.id for r in read_rows(rows) if alone(r)}
    assert kept == {
        r.id for r in read_rows(rows) if keeps(r) and tasks.get(r.question_type).group == "depth_value"
    }
    assert kept < few


def test_an_empty_part_is_said(rows, tmp_path):
    with pytest.raises(SpatialError, match="is left for 'nothing'"):
        write_part([rows], tmp_path / "nothing", lambda row: False)
