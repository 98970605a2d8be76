"""The commands as a user runs them: whole outputs, and a sentence instead of a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_training.probe.__main__ import main
from spatial_mllm_training.sources.ply import read_vertices_m

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "models" / "spatial-mllm-mini"
HELD_OUT = ROOT / "tests" / "fixtures" / "simulated"


def test_a_probe_of_a_run_is_trained_on_one_split_judged_on_the_other_and_not_trained_twice(
    small_run, training_scene, tmp_path, capsys
):
    out = tmp_path / "probe"
    scenes = ["--scenes", "simulated", str(training_scene), "--scenes", "simulated", str(HELD_OUT)]
    command = [
        "depth",
        "--run",
        str(small_run),
        *scenes,
        "--frames",
        "3",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    command += ["--hidden", "8", "--epochs", "2"]
    assert main(command) == 0
    first = json.loads((out / "probe.json").read_text())
    assert (first["training_images"], first["held_out_images"]) == (3, 6)
    lines = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    assert {line["scene"] for line in lines} == {"scene_00100122", "scene_00100126"}
    assert first["rmse_m"] == first["probe"]["rmse_m"] == pytest.approx(np.mean([x["rmse_m"] for x in lines]))
    assert first["blind"]["rmse_m"] > 0
    said = capsys.readouterr().out
    assert "micro at step 7: 3 training images, 6 held-out images" in said
    written = (out / "probe.pt").stat().st_mtime_ns
    assert main(command) == 0
    assert json.loads((out / "probe.json").read_text()) == first
    assert (out / "probe.pt").stat().st_mtime_ns == written
    assert main([*command[:-1], "3"]) == 2
    assert "belongs to a probe of another configuration" in capsys.readouterr().err


def test_a_shipped_bundle_is_lifted_to_clouds_a_sheet_and_figures(tmp_path, capsys):
    scene = tmp_path / "scenes"
    scene.mkdir()
    shutil.copy(HELD_OUT / "scene_00100126.npz", scene)
    out = tmp_path / "lifted"
    command = ["lift", "--bundle", str(BUNDLE), "--scenes", "simulated", str(scene), "--frames", "2"]
    assert main([*command, "--points", "1000", "--out", str(out)]) == 0
    folder = out / "scene_00100126"
    assert {f.name for f in folder.iterdir()} == {
        "predicted.ply",
        "true.ply",
        "side_by_side.ply",
        "sheet.png",
    }
    predicted, true, both = (
        read_vertices_m("s", folder / f"{name}.ply") for name in ("predicted", "true", "side_by_side")
    )
    assert (len(predicted), len(true), len(both)) == (1000, 1000, 2000)
    # the scene stands on the floor of its world, and so do the true points
    assert -0.05 < np.percentile(true[:, 2], 1) < 0.1
    assert cv2.imread(str(folder / "sheet.png")).shape[1] > 1000
    figures = json.loads((out / "lift.json").read_text())
    assert figures["images"] == 2
    assert figures["model"].startswith("spatial-mllm-mini/")
    assert figures["rmse_m"] > figures["matched"]["rmse_m"] > 0
    assert f"{figures['rmse_m']:.3f} m" in capsys.readouterr().out


def test_a_run_is_lifted_by_its_own_head(small_run, tmp_path):
    command = ["lift", "--run", str(small_run), "--scenes", "simulated", str(HELD_OUT), "--frames", "1"]
    assert main([*command, "--figures-only", "--out", str(tmp_path / "out")]) == 0
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["images.jsonl", "lift.json"]
    assert json.loads((tmp_path / "out" / "lift.json").read_text())["images"] == 2


def test_real_images_with_depth_are_lifted_too(tmp_path):
    source = ROOT / "tests" / "fixtures" / "hololens"
    command = ["lift", "--bundle", str(BUNDLE), "--scenes", "posed_rgbd", str(source), "--frames", "1"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").rglob("sheet.png"))) == 1


def test_trend_over_three_checkpoints(tmp_path, capsys):
    command = ["trend"]
    for i, (rmse_m, percent) in enumerate(((0.9, 20.0), (0.5, 40.0), (0.3, 55.0))):
        lifting, score = tmp_path / f"lift{i}.json", tmp_path / f"score{i}.json"
        lifting.write_text(json.dumps({"rmse_m": rmse_m}))
        score.write_text(json.dumps({"group_mean": {"robust": {"percent": percent}}}))
        command += ["--checkpoint", str(lifting), str(score)]
    assert main(command) == 0
    assert "accuracy: -1.00 over 3 checkpoints, p = 0.333" in capsys.readouterr().out
    assert main(command[:7]) == 2
    assert "at least three checkpoints, found 2" in capsys.readouterr().err
    (tmp_path / "lift1.json").write_text('{"rmse_m": NaN}')
    assert main(command) == 2
    assert "lift1.json': rmse_m is not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["depth", "--run", "{tmp}", "--scenes", "simulated", "{held}"],
            "config.json; it is not a run folder",
        ),
        (["depth", "--run", "{run}", "--scenes", "simulated", "{held}"], "no image of the split 'train'"),
        (
            ["depth", "--run", "{run}", "--scenes", "simulated", "{held}", "--hidden", "0"],
            "--hidden must be positive",
        ),
        (
            ["depth", "--run", "{run}", "--scenes", "simulated", "{held}", "--max-depth", "nan"],
            "--max-depth must be",
        ),
        (
            ["depth", "--model", "x", "--size", "5", "--scenes", "simulated", "{held}"],
            "WIDTHxHEIGHT such as 448x336",
        ),
        (["depth", "--model", "{tmp}", "--scenes", "simulated", "{held}"], "no configuration of a model at"),
        (["lift", "--bundle", "{tmp}/x", "--scenes", "simulated", "{held}"], "MODEL_MISSING"),
        (["lift", "--run", "{run}", "--scenes", "simulated", "{tmp}"], "holds no scene_*.npz"),
        (["lift", "--run", "{run}", "--scenes", "photos", "{tmp}"], "no sources of kind 'photos'"),
        (
            ["lift", "--run", "{run}", "--scenes", "simulated", "{held}", "--split", "train"],
            "none of 2 scenes gives",
        ),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, small_run, tmp_path, capsys):
    places = {
        "tmp": tmp_path,
        "held": HELD_OUT,
        "run": small_run,
        "dvrk": ROOT / "tests" / "fixtures" / "dvrk",
    }
    assert main([word.format(**places) for word in [*words, "--out", str(tmp_path / "out")]]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert sentence in said[-1]
    assert not any("Traceback" in line for line in said)


def test_missing_rerun_is_said_before_anything_is_computed(monkeypatch, tmp_path, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "rerun", None)
    command = ["lift", "--bundle", str(tmp_path), "--scenes", "simulated", str(HELD_OUT), "--rrd"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "recordings need rerun" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
