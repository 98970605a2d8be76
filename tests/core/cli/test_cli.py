"""Every verb: help with an example, its work on files, and one sentence for what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spatial_mllm_core.bags import open_bag
from spatial_mllm_core.cli.common import Progress, read_camera_info
from spatial_mllm_core.cli.depth import colour_png
from spatial_mllm_core.cli.main import VERBS, main
from spatial_mllm_core.errors import ErrorCode, SpatialError

REPOSITORY = Path(__file__).parents[3]
CALIBRATION = """\
image_width: 64
image_height: 48
camera_name: narrow_stereo
camera_matrix: {rows: 3, cols: 3, data: [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [50.0, 0, 31.5, 0, 0, 50.0, 23.5, 0, 0, 0, 1, 0]}
"""


@pytest.fixture
def known_model(monkeypatch: pytest.MonkeyPatch, arithmetic_model: object) -> None:
    """Every load gives the arithmetic double of tests/core/cli/conftest.py."""
    from spatial_mllm_core.model.spatial_model import SpatialModel

    monkeypatch.setattr(SpatialModel, "load", lambda *_, **__: arithmetic_model)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "view.png"), image)
    return tmp_path / "view.png"


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert "example:" in out
    assert f"spatial-mllm {verb}" in out


def test_no_verb_and_unknown_verb_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["fly"]) == 2
    assert "invalid choice" in capsys.readouterr().err


def test_help_of_the_command_imports_no_heavy_library() -> None:
    code = (
        "import sys; from spatial_mllm_core.cli.main import main; main(['--help']); "
        "print(sorted({'cv2', 'onnxruntime', 'rosbags', 'numpy', 'torch'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_runs_as_a_program() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-m", "spatial_mllm_core.cli", "evaluate", "no/bag"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr == "spatial-mllm: E601 BAG_MISSING: there is no bag at 'no/bag'\n"
    assert done.stdout == ""


# -- depth ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("known_model")
def test_depth_writes_millimetres_and_colours(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["depth", str(picture), "--hfov", "60"]) == 0
    millimetres = cv2.imread(str(picture.with_name("view_depth_mm.png")), cv2.IMREAD_UNCHANGED)
    assert millimetres.dtype == np.uint16
    assert millimetres.shape == (48, 64)
    assert 2200 <= millimetres.min() <= millimetres.max() <= 2210
    colours = cv2.imread(str(picture.with_name("view_depth_colour.png")))
    assert colours.shape[0] == 48
    assert colours.shape[1] > 64
    assert "median 2.20 m" in capsys.readouterr().out


@pytest.mark.usefixtures("known_model")
def test_depth_does_not_overwrite_unless_told(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["depth", str(picture), "--hfov", "60"]) == 0
    capsys.readouterr()
    assert main(["depth", str(picture), "--hfov", "60"]) == 1
    assert "E605" in error_line(capsys)
    assert main(["depth", str(picture), "--hfov", "60", "--overwrite"]) == 0
    assert sorted(p.name for p in picture.parent.iterdir()) == [
        "view.png",
        "view_depth_colour.png",
        "view_depth_mm.png",
    ]


@pytest.mark.usefixtures("known_model")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "E201"),
        (["--hfov", "0"], "E408"),
        (["--hfov", "nan"], "E408"),
        (["--k", "1,2,3"], "E408"),
        (["--k", "0,0,0,0"], "E202"),
        (["--k", "nan,1,1,1"], "E408"),
        (["--camera-info", "no.yaml"], "E203"),
    ],
)
def test_depth_needs_a_calibration(
    picture: Path, arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["depth", str(picture), *arguments]) == 1
    assert code in error_line(capsys)
    assert [p.name for p in picture.parent.iterdir()] == ["view.png"]


@pytest.mark.usefixtures("known_model")
@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_depth_of_something_else(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    assert main(["depth", str(path), "--hfov", "60"]) == 1
    line = error_line(capsys)
    assert "E10" in line
    assert "x.jpg" in line


def test_colour_scale_has_readable_numbers_and_fits() -> None:
    depth = np.linspace(0.4, 6, 480 * 640, dtype=np.float32).reshape(480, 640)
    image = cv2.imdecode(np.frombuffer(colour_png(depth), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[0] == 480
    strip = image[:, 640:]
    # nothing is drawn on the last two columns: no number is clipped
    assert (strip[:, -2:] == 255).all()
    dark = (strip < 100).all(axis=2)
    assert dark.any()


# -- calibration file -------------------------------------------------------------------------------


@pytest.mark.usefixtures("known_model")
def test_camera_info_file_of_camera_calibration(picture: Path, tmp_path: Path) -> None:
    file = tmp_path / "camera.yaml"
    file.write_text(CALIBRATION)
    info = read_camera_info(file)
    assert (info.width, info.height, info.distortion_model) == (64, 48, "plumb_bob")
    assert info.d.tolist() == [0.1, 0, 0, 0, 0]
    assert main(["depth", str(picture), "--camera-info", str(file)]) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a mapping"),
        ("- 1", "not a mapping"),
        ("image_width: 3", "image_height is missing"),
        (CALIBRATION.replace("31.5, 0, 50.0", "0, 50.0", 1), "camera_matrix has 8 numbers"),
        ("a: [", "not a calibration file"),
        ("!!python/object/apply:os.system ['true']", "not a calibration file"),
    ],
)
def test_broken_calibration_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "camera.yaml"
    file.write_text(text)
    with pytest.raises(SpatialError) as caught:
        read_camera_info(file)
    assert caught.value.code is ErrorCode.BAD_INTRINSICS
    assert words in caught.value.sentence


# -- ask --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("known_model")
def test_ask_prints_a_line_or_json(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ask", str(picture), "--hfov", "60", "--task", "depth_estimation_coor", "--pixel", "10,20"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("2.100 m  (confidence")
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["values"] == [2.1]
    assert answer["unit"] == "m"


@pytest.mark.usefixtures("known_model")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--task", "nonsense"], "E404"),
        (["--task", "total_distance"], "E405"),
        (["--task", "depth_estimation_coor", "--pixel", "1"], "E408"),
        ([], "E401"),
    ],
)
def test_wrong_questions(
    picture: Path, arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(picture), "--hfov", "60", *arguments]) == 1
    assert code in error_line(capsys)


@pytest.mark.usefixtures("known_model")
def test_category_and_variant_reach_the_request(picture: Path, arithmetic_model: Any) -> None:
    view = ["ask", str(picture), "--hfov", "60"]
    size = ["--task", "object_perception_height_estimation", "--category", "toy car"]
    assert main([*view, *size]) == 0
    pair = ["--task", "depth_comparison_coordinate", "--pixel", "1,1", "--pixel", "20,20"]
    main([*view, *pair, "--variant", "farther"])
    told = [(request.category, request.variant) for request in arithmetic_model.asked]
    assert told == [("toy car", ""), ("", "farther")]


def test_ask_lists_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "--list-tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 26
    assert "depth_estimation_coor: 1 image(s), 1 point(s), answer: scalar" in lines
    assert not any("not trained into" in line for line in lines)  # the shipped model answers all
    assert any(line.startswith("object_perception_height_estimation: 1 to 5 image(s)") for line in lines)
    assert sum("variant closer or farther" in line for line in lines) == 2


def test_what_a_model_was_not_trained_for_is_said(
    tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "few"
    shutil.copytree(bundle_folder, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest |= {"name": "few", "tasks": manifest["tasks"][:2]}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert main(["ask", "--list-tasks", "--model", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("not trained into few" in line for line in lines) == 24


def test_ask_lists_tasks_also_where_there_is_no_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPATIAL_MLLM_MODEL", "a-model-that-is-not-installed")
    assert main(["ask", "--list-tasks"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 26
    assert main(["ask", "--list-tasks", "--model", str(tmp_path / "none")]) == 1
    assert "E501" in error_line(capsys)


# -- annotate and evaluate --------------------------------------------------------------------------


@pytest.mark.usefixtures("known_model")
def test_annotate_then_evaluate_against_it(
    push_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page, figures = tmp_path / "out.mcap", tmp_path / "r.html", tmp_path / "f.json"
    assert main(["annotate", str(push_bag), "--out", str(out), "--confidence"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with open_bag(out) as bag:
        assert "/spatial_mllm/depth/image/compressedDepth" in {t.name for t in bag.topics()}
    arguments = [
        "evaluate",
        str(push_bag),
        "--against",
        str(out),
        "--report",
        str(page),
        "--json",
        str(figures),
    ]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "6 depth images, 13 answers and 5 rewards are equal bit for bit" in told
    assert "6 in, 6 answered, 0 dropped" in told
    assert told.splitlines()[-1] == str(page)
    assert json.loads(figures.read_text())["replay"]["difference"] == ""
    assert "<!doctype html>" in page.read_text()


@pytest.mark.usefixtures("known_model")
def test_annotate_refuses_what_exists_before_it_works(
    push_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mcap"
    out.write_text("mine")
    assert main(["annotate", str(push_bag), "--out", str(out)]) == 1
    assert "E605" in error_line(capsys)
    assert out.read_text() == "mine"


@pytest.mark.usefixtures("known_model")
def test_annotate_never_writes_into_its_input(push_bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(push_bag), "--out", str(push_bag)]) == 1
    assert "E605" in error_line(capsys)


@pytest.mark.usefixtures("known_model")
def test_evaluate_says_a_difference_with_its_status(
    push_bag: Path, tmp_path: Path, arithmetic_model: object, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mcap"
    assert main(["annotate", str(push_bag), "--out", str(out)]) == 0
    arithmetic_model.depth_offset_m = 0.5  # type: ignore[attr-defined]
    assert main(["evaluate", str(push_bag), "--against", str(out)]) == 3
    assert "different: the depth at" in capsys.readouterr().out


@pytest.mark.usefixtures("known_model")
def test_truncated_bag_is_used_and_ends_with_status_3(
    push_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (push_bag / "push.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert main(["annotate", str(cut), "--out", str(tmp_path / "out")]) == 3
    assert "partly readable" in capsys.readouterr().err
    assert main(["evaluate", str(cut)]) == 3


@pytest.mark.usefixtures("known_model")
def test_limit_and_topics(push_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(push_bag), "--limit", "2", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["frames_in"] == 2
    assert main(["evaluate", str(push_bag), "--image-topic", "/nope"]) == 1
    assert "E603" in error_line(capsys)


def test_bag_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from spatial_mllm_core.bags import BagWriter
    from spatial_mllm_core.bags.message_types import make_message

    with BagWriter(tmp_path / "b") as bag:
        bag.add_topic("/x", "std_msgs/msg/Float64")
        bag.write("/x", make_message("std_msgs/msg/Float64", data=1.0), 1)
    assert main(["evaluate", str(tmp_path / "b")]) == 1
    line = error_line(capsys)
    assert "E603" in line
    assert "/x (Float64, 1)" in line


def test_unexpected_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spatial_mllm_core.cli import models

    def fail(_: object) -> int:
        raise RuntimeError("first\nsecond")

    monkeypatch.delenv("SPATIAL_MLLM_TRACEBACK", raising=False)
    monkeypatch.setattr(models, "run", fail)
    assert main(["models"]) == 1
    assert "RuntimeError: first\\nsecond" in error_line(capsys)


def test_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from spatial_mllm_core.cli import models

    def stop(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "run", stop)
    assert main(["models"]) == 130
    assert error_line(capsys) == "spatial-mllm: interrupted"


# -- models and doctor ------------------------------------------------------------------------------


def test_models_names_a_missing_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m").mkdir()
    assert main(["models", str(tmp_path / "m")]) == 1
    assert "E501" in capsys.readouterr().out


def test_models_finds_a_changed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/manifest.json").write_text("{}")
    assert main(["models", str(tmp_path / "m")]) == 1
    assert "E507" in capsys.readouterr().out


def test_doctor_tells_versions_and_survives_a_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--model", "/no/such/bundle"])
    out = capsys.readouterr().out
    assert status == 1
    assert np.__version__ in out
    assert "BAD model" in " ".join(out.split())
    assert "E501" in out


# -- progress ---------------------------------------------------------------------------------------


class _Terminal:
    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_progress_draws_on_a_terminal_and_cleans_up() -> None:
    terminal = _Terminal()
    with Progress("images", terminal) as progress:  # type: ignore[arg-type]
        progress(1, 2)
        progress(2, 2)
    assert "[" + "#" * 30 + "] images 2/2" in terminal.text
    assert terminal.text.endswith("\r\x1b[K")
