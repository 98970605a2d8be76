"""What a bundle claims is what its run was taught, and it answers all of that."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.model.bundle import open_bundle, read_manifest
from spatial_mllm_core.model.prompt import PromptFormat
from spatial_mllm_training.ablate.decode import answers
from spatial_mllm_training.benchmark.__main__ import main as benchmark
from spatial_mllm_training.benchmark.serving import ask_bundle
from spatial_mllm_training.data.packing import PackedQuestion, pack
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.pair_questions import TASKS
from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.export.__main__ import main as export
from spatial_mllm_training.export.write_bundle import claimed_subtasks, context_for, load_run, with_dots
from spatial_mllm_training.model.bundle_weights import read_weights
from spatial_mllm_training.multispa.rows import read_rows, to_table
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import MixConfig, RowsConfig
from spatial_mllm_training.scenes.split import scene_files
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.setup import DataPaths, build_learner

FIXTURES = Path(__file__).parents[2] / "fixtures"
OLD_TOKENIZER, MINI = FIXTURES / "tokenizer_0.1.0.json", FIXTURES / "multispa_sim_mini"


@pytest.fixture(scope="module")
def rows_of(tmp_path_factory):
    """A function (names) that writes a data set with one row of each subtask, the one with most images."""

    def make(names):
        folder = tmp_path_factory.mktemp("rows")
        chosen = {}
        for row in sorted(read_rows(MINI), key=lambda r: len(r.image)):
            if row.question_type in names:
                chosen[row.question_type] = row
        assert set(chosen) == set(names)
        pq.write_table(to_table(list(chosen.values())), folder / "rows-00000.parquet")
        (folder / "images").symlink_to(MINI / "images", target_is_directory=True)
        return folder

    return make


@pytest.fixture
def scenes(tmp_path, write_scene):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for seed in (1, 100_000):
        write_scene(folder / f"scene_{seed:08d}.npz", seed)
    return folder


@pytest.fixture
def trained(tmp_path):
    """A function (paths, mix) -> the folder of a run of two steps at 96x64 px."""

    def make(paths, mix, **changes):
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        settings = {
            "data": PairConfig(width=96, height=64, single_questions=2, pair_questions=2),
            "rows": RowsConfig(size=(96, 64), served_words=0.5),
            "steps": 2,
            "validate_batches": 1,
            "workers": 0,
        }
        config = dataclasses.replace(RECIPES["smoke"](), mix=mix, **{**settings, **changes})
        run(config, paths, tmp_path / "run", cpu=True, quiet=True, strict=True)
        torch.set_num_threads(before)
        return tmp_path / "run"

    return make


def test_pairs_and_rows_make_a_bundle_that_is_asked_all_26(
    trained, scenes, rows_of, tmp_path, monkeypatch, capsys
):
    data = rows_of(tasks.names())
    run_folder = trained(DataPaths(scenes=scenes, rows=(data,)), MixConfig(pairs=1.0, rows=1.0))
    bundle = tmp_path / "bundle"
    monkeypatch.setattr("sys.argv", ["export", "--run", str(run_folder), "--out", str(bundle)])
    export()
    assert read_manifest(bundle).tasks == tasks.names()
    capsys.readouterr()
    assert benchmark(["score", "--data", str(data), "--bundle", str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert "not served" not in printed and "refused" not in printed
    rows = list(read_rows(data))
    assert set(ask_bundle(bundle, rows, data / "images", quiet=True).texts) == {row.id for row in rows}


def test_numbers_of_one_width_are_told_as_published(trained, scenes, tmp_path, monkeypatch):
    """The runtime chooses the tokens that the torch model's medians choose, and users see plain numbers."""
    depths = PairConfig(width=96, height=64, single_questions=3, pair_questions=0)
    run_folder = trained(
        DataPaths(scenes=scenes),
        MixConfig(),
        steps=60,
        number_digits=4,
        data=depths,
        ema=0.0,
        learning_rate=5e-3,
    )
    bundle = tmp_path / "bundle"
    monkeypatch.setattr("sys.argv", ["export", "--run", str(run_folder), "--out", str(bundle)])
    export()
    assert read_manifest(bundle).prompt.number_digits == 4
    model, config, tokenizer, _ = load_run(run_folder)
    kept = read_weights(open_bundle(bundle))  # as exact as the bundle keeps them
    model.load_state_dict({name: kept[name] for name, _ in model.named_parameters()}, strict=False)
    learner = dataclasses.replace(build_learner(config), model=model)
    builder = PairBuilder(scene_files(scenes, held_out=True), tokenizer, config.data, augment=False)
    served = SpatialModel.load(bundle)
    numbers = []
    for seed in range(5):
        view = builder.draw(np.random.default_rng(seed))
        questions = [q for q in view.single if q.task.kind == "scalar"]
        if not questions:  # nothing but comparisons
            continue
        frame = Frame(seed + 1, "optical", view.images[0], view.cameras[0])
        sample = builder.sample(np.random.default_rng(seed))
        asked = pack(
            "asked",
            sample.images[:1],
            [PackedQuestion(((q.words(), ""),), 1) for q in questions],
            learner.form,
        )
        for question, text in zip(questions, answers(learner, [asked])[0], strict=True):
            told = served.ask(AskRequest("", (frame,), question=question.words()))
            found, expected = (re.findall(r"`(\d+)`", words) for words in (told.text, text))
            # where a last digit is hardly known, the rounding of two engines decides about it, and the table of
            # words, which is tied to the decoder's output, has 8 bits at its input and 5 there
            assert list(map(int, found)) == pytest.approx(list(map(int, expected)), abs=2, rel=0.01)
            assert re.sub(r"\d+", "", told.text) == re.sub(r"\d+", "", text)
            numbers += found
    assert numbers and all(str(int(n)) == n for n in numbers)


def test_a_run_that_goes_on_with_other_rows_claims_the_rows_of_both(trained, rows_of):
    mix = MixConfig(pairs=0.0, rows=1.0)
    first, second = ("yaw_angle", "depth_estimation_dot"), ("yaw_angle", "object_perception_width_estimation")
    run_folder = trained(DataPaths(rows=(rows_of(first),)), mix)
    assert set(claimed_subtasks(run_folder)) == set(first)
    trained(DataPaths(rows=(rows_of(second),)), mix)
    assert set(claimed_subtasks(run_folder)) == {*first, *second}


def test_a_run_of_an_older_version_keeps_its_tokens_and_claims_what_pairs_teach(trained, scenes, tmp_path):
    """The tokenizer of the first bundle knows eleven subtasks; the run's weights have its size."""
    (tmp_path / "run").mkdir()
    shutil.copy(OLD_TOKENIZER, tmp_path / "run" / "tokenizer.json")
    run_folder = trained(DataPaths(scenes=scenes), MixConfig())
    record = json.loads((run_folder / "run.json").read_text())
    assert set(record.pop("subtasks")) == set(TASKS)
    (run_folder / "run.json").write_text(json.dumps(record))
    assert claimed_subtasks(run_folder) == TASKS
    (run_folder / "run.json").unlink()
    assert claimed_subtasks(run_folder) == TASKS
    model, _, tokenizer, _ = load_run(run_folder)
    old = Tokenizer.from_file(str(OLD_TOKENIZER))
    assert tokenizer.to_str() == old.to_str() and old.get_vocab_size() < 1700
    assert model.hf.get_input_embeddings().weight.shape[0] == -(-old.get_vocab_size() // 32) * 32


def test_a_torn_tokenizer_is_said(trained, scenes):
    run_folder = trained(DataPaths(scenes=scenes), MixConfig())
    (run_folder / "tokenizer.json").write_text("{")
    with pytest.raises(SpatialError, match=r"tokenizer\.json' is not a tokenizer"):
        load_run(run_folder)
    (run_folder / "tokenizer.json").unlink()
    with pytest.raises(SpatialError, match=r"has lost its tokenizer\.json"):
        load_run(run_folder)


@pytest.mark.parametrize("torn", ["{", "[]", '{"subtasks": 5}', '{"subtasks": ["no_such_task"]}'])
def test_a_torn_record_is_said(tmp_path, torn):
    (tmp_path / "run.json").write_text(torn)
    with pytest.raises(SpatialError, match=r"run\.json' is not the record of a run") as fault:
        claimed_subtasks(tmp_path)
    assert fault.value.code is ErrorCode.MODEL_SIGNATURE


def test_the_context_holds_five_images(tokenizer):
    assert context_for(tokenizer, PromptFormat(), 12 * 9) == 1024  # as in the first bundle
    assert context_for(tokenizer, PromptFormat(), 16 * 12) == 2048


def test_a_bundle_that_finds_dots_answers_what_it_answers_by_coordinates():
    claimed = with_dots(("total_distance", "depth_estimation_coor", "tapvid3d_total_distance_coord_adt"))
    assert claimed == (
        "depth_estimation_dot", "depth_estimation_coor", "total_distance",
        "tapvid3d_total_distance_coord_adt", "tapvid3d_total_distance_dot_adt",
    )  # fmt: skip
    assert with_dots(()) == ()
    assert with_dots(tasks.names()) == tasks.names()
