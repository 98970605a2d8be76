"""The command refuses figures and notes that it cannot read, before it builds anything."""

from __future__ import annotations

import pytest

from spatial_mllm_training.export.__main__ import main
from spatial_mllm_training.recipes import RECIPES


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
