"""The command from scenes to record, page and card; what is missing or broken is one sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from spatial_mllm_core.model.bundle import open_bundle
from spatial_mllm_training.benchmark.__main__ import main as score_benchmark
from spatial_mllm_training.export.card import write_card
from spatial_mllm_training.export.record import Measured
from spatial_mllm_training.score.__main__ import main

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "models/spatial-mllm-mini"
SCENES = ROOT / "tests/fixtures/simulated"
MINI = ROOT / "tests/fixtures/multispa_sim_mini"
pytestmark = pytest.mark.skipif(not BUNDLE.exists(), reason="needs the shipped model")


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The stored test scenes once more, under seeds of the training."""
    folder = tmp_path_factory.mktemp("score") / "training"
    folder.mkdir()
    for seed, file in enumerate(sorted(SCENES.glob("scene_*.npz"))):
        with np.load(file) as scene:
            np.savez(folder / f"scene_{seed:08d}.npz", **{**scene, "seed": np.int64(seed)})
    return folder


@pytest.fixture(scope="module")
def small(training):
    """Arguments of the smallest run that measures something of most parts."""
    return [
        *("--bundle", str(BUNDLE), "--scenes", str(training), "--scenes", str(SCENES)),
        *("--images", "4", "--slope-images", "2", "--blind-images", "4"),
        *("--episode-count", "0", "--real-images", "2", "--real-rows", "1"),
        *("--real", "object_motion", str(ROOT / "tests/fixtures/dvrk"), "balls | on an arm"),
    ]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """One row of every subtask of the stored benchmark, with its images and blind baseline."""
    folder = tmp_path_factory.mktemp("score-rows") / "sim"
    folder.mkdir()
    rows = pq.read_table(MINI / "rows-00000.parquet")
    kinds = rows["question_type"].to_pylist()
    pq.write_table(
        rows.take([kinds.index(name) for name in dict.fromkeys(kinds)]), folder / "rows-00000.parquet"
    )
    (folder / "images").symlink_to(MINI / "images")
    shutil.copy(MINI / "blind.json", folder)
    return folder


@pytest.fixture(scope="module")
def record(small, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("score-out")
    rows = ["--benchmark", str(benchmark)]
    assert main([*small, *rows, "--out", str(out / "score.json"), "--html", str(out / "score.html")]) == 0
    return out


def test_every_part_is_in_the_record(record):
    found = json.loads((record / "score.json").read_text())
    lines = {f["key"]: Measured.from_json(f) for f in found["figures"]}
    # both stored scenes have one kind of cameras, the other is told as missing
    (kind,) = {key.split("/")[1] for key in lines if key.startswith("focal_slope/")}
    assert {
        f"depth/{kind}/abs_rel",
        f"depth/{kind}/delta1",
        f"focal_slope/{kind}",
        "multispa/group_mean",
    } <= set(lines)
    assert (
        "questions/dvrk/mean" in lines
        and "depth/dvrk/abs_rel" in lines
        and "depth/bag_table_push/delta1" in lines
    )
    assert not any(key.startswith("trend/") for key in lines), "0 leaves a part out"
    assert [n for n in found["notes"] if n.startswith("No scene for")]
    depth = lines[f"depth/{kind}/abs_rel"]
    assert (depth.count, depth.scenes) == (4, 2) and 0 < depth.value < 2 and depth.blind > 0
    assert lines["multispa/group_mean"].verdict.startswith("missed by")
    assert (
        found["model"] == open_bundle(BUNDLE).manifest.label
        and "2 simulated training scenes" in found["data"]
    )
    assert found["tasks"]["total_distance"]["n"] == 1
    assert (record / "score.html").read_text().startswith("<!doctype html>")


def test_the_card_says_what_the_record_says(record):
    metrics = json.loads((record / "score.json").read_text())
    manifest = dataclasses.replace(open_bundle(BUNDLE).manifest, metrics=metrics)
    card = write_card(manifest, "One more thing.")
    for figure in map(Measured.from_json, metrics["figures"]):
        row = next(line for line in card.splitlines() if line.startswith(f"| {figure.what} | "
                   f"{figure.where.replace('|', '/')} |"))  # fmt: skip
        assert row.count("|") == 8, "a bar in a name must not make a column"
        assert figure.value_words in row and figure.verdict in row and figure.of_words in row
    for name, line in metrics["tasks"].items():
        assert f"| `{name}` | {line['accuracy']:g} ({line['standard_error']:g}) |" in card
    goals = [f for f in metrics["figures"] if f["goal"]]
    met = sum(f["verdict"] == "met" for f in goals)
    assert f"**It meets {met} of {len(goals)} goals**" in card
    assert "One more thing." in card and metrics["split"] in card


def test_a_recording_that_breaks_in_the_middle_is_noted_and_the_others_are_measured(small, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(ROOT / "tests/fixtures/dvrk", torn)
    for image in sorted(torn.rglob("*.png"))[1:]:
        image.write_bytes(image.read_bytes()[:100])
    out, real = tmp_path / "score.json", ["--real", "object_motion", str(torn), "torn"]
    assert main([*small, "--images", "0", "--slope-images", "0", *real, "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    assert any(note.startswith("torn: no ") for note in told["notes"])
    assert any(figure["where"].startswith("real: balls") for figure in told["figures"])


def test_a_bundle_without_figures_has_a_card():
    manifest = dataclasses.replace(open_bundle(BUNDLE).manifest, metrics={})
    assert "Not measured yet" in write_card(manifest)


def test_equal_arguments_give_equal_records(small, tmp_path):
    answers = tmp_path / "answers.jsonl"
    answers.write_text("")
    rows, benchmark = MINI, tmp_path / "benchmark.json"
    words = ["score", "--data", str(rows), "--predictions", str(answers), "--out", str(benchmark)]
    assert score_benchmark(words) == 0
    result = json.loads(benchmark.read_text()) | {"model": open_bundle(BUNDLE).manifest.label}
    benchmark.write_text(json.dumps(result))
    for name in ("a.json", "b.json"):
        more = ["--real-rows", "0", "--benchmark-score", str(benchmark), "--out", str(tmp_path / name)]
        assert main([*small, *more]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--scenes", "nowhere"], "nowhere"),
        (["--held-out", "100500:100600"], "need training scenes and test scenes"),
        (["--bundle", "no/bundle"], "no/bundle"),
        (["--run", "no/run"], "no/run"),
        (["--real", "object_motion", "no/balls", "x"], "no/balls"),
        (["--real", "ply", "x", "x"], "no sources of kind"),
        (["--benchmark-score", "no.json"], "no.json"),
        (["--real", "object_motion", "no/balls", "balls | on an arm"], "two recordings are called"),
        (["--option", "posed_rgbd.world_up=0,1,0"], "a kind given with --real"),
    ],
)
def test_what_is_missing_is_one_sentence(small, capsys, change, words):
    assert main([*small, "--images", "0", "--slope-images", "0", *change]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said and "Traceback" not in said


def test_seeds_that_are_none_are_refused(small, capsys):
    with pytest.raises(SystemExit):
        main([*small, "--held-out", "7"])
    assert "expected FIRST:LAST, found '7'" in capsys.readouterr().err
