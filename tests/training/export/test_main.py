"""The command refuses figures and notes that it cannot read, before it builds anything."""

from __future__ import annotations

import pytest

from spatial_mllm_training.export.__main__ import main
from spatial_mllm_training.recipes import RECIPES


def test_figures_of_another_bundle_are_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text(RECIPES["smoke"]().to_json())
    file = tmp_path / "score.json"
    file.write_text('{"model": "mini/0.1.0", "figures": []}')
    given = ["--run", str(tmp_path), "--out", str(tmp_path / "mini"), "--metrics", str(file)]
    assert main([*given, "--version", "0.2.0"]) == 2
    assert "holds figures of 'mini/0.1.0', this is 'mini/0.2.0'" in capsys.readouterr().err
    assert main(given) == 2  # the same bundle: only the run is missing
    assert "no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--version", "--metrics", "--notes", "--dots"])
def test_what_belongs_to_bundles_is_refused_for_published_models(tmp_path, capsys, option):
    (tmp_path / "config.json").write_text(RECIPES["qwen2_5_vl_3b_lora"]().to_json())
    assert main(["--run", str(tmp_path), "--out", str(tmp_path / "out"), option, "x"]) == 2
    assert "--version, --metrics, --notes and --dots are for bundles" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--metrics", b"{", "is not what `score --out` writes"),
        ("--metrics", b"[]", "is not what `score --out` writes"),
        ("--metrics", b'{"abs_rel": 0.2}', "is not what `score --out` writes"),
        ("--metrics", b'{"figures": [{"key": "a"}]}', "is not what `score --out` writes"),
        ("--metrics", b'{"figures": ["a"]}', "is not what `score --out` writes"),
        ("--notes", b"\xff\xfe", "is not text"),
        ("--notes", None, "cannot be read"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path, capsys, option, content, words):
    (tmp_path / "config.json").write_text(RECIPES["smoke"]().to_json())
    file = tmp_path / "given.txt"
    if content is not None:
        file.write_bytes(content)
    assert main(["--run", str(tmp_path), "--out", str(tmp_path / "out"), option, str(file)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "given.txt" in said and words in said
    assert not (tmp_path / "out").exists()
