from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.ply import read_vertices_m

POINTS = np.array([[1.5, -2, 3], [0, 0.25, 1e3], [7, 8, 9]], np.float32)


def header(form, before="", vertices=3, properties="property float x\nproperty float y\nproperty float z\n"):
    return f"ply\nformat {form} 1.0\n{before}element vertex {vertices}\n{properties}end_header\n".encode()


def binary(order, kind="f4", **options):
    name = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    return header(name, **options) + POINTS.astype(order + kind).tobytes()


DOUBLES = "property double x\nproperty double y\nproperty double z\n"
GOOD = {
    "little": binary("<"),
    "big": binary(">"),
    "double": binary("<", "f8", properties=DOUBLES),
    "ascii": header("ascii") + b"1.5 -2 3\n0 .25 1e3\n7 8 9\n3 0 1 2\n",
    "windows": (header("ascii") + b"1.5 -2 3\n0 .25 1e3\n7 8 9\n").replace(b"\n", b"\r\n"),
    "element before": header("binary_little_endian", before="element camera 2\nproperty short id\n")
    + bytes(4)
    + POINTS.tobytes(),
    "other order": header(
        "ascii", properties="property int id\nproperty float z\nproperty float x\nproperty float y\n"
    )
    + b"4 3 1.5 -2\n5 1e3 0 .25\n6 9 7 8\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_vertices(tmp_path, name):
    file = tmp_path / "a.ply"
    file.write_bytes(GOOD[name])
    points = read_vertices_m("s", file)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, POINTS)


BAD = {
    "empty": b"",
    "no ply": b"solid\nend_header\n",
    "header cut": header("ascii")[:40],
    "binary cut": binary("<")[:-1],
    "ascii cut": header("ascii") + b"1 2 3\n4 5",
    "not numbers": header("ascii") + b"1 2 3\n4 5 a\n7 8 9\n",
    "nan": header("ascii") + b"1 2 3\n4 nan 6\n7 8 9\n",
    "no vertices": header("ascii", vertices=0),
    "no z": header("ascii", properties="property float x\nproperty float y\n") + b"1 2\n3 4\n5 6\n",
    "list": header("ascii", properties="property list uchar int x\n") + b"1 2\n3 4\n5 6\n",
    "unknown format": header("binary_middle_endian") + POINTS.tobytes(),
    "unknown type": header("ascii", properties="property quad x\n"),
    "bad count": header("ascii", vertices="many"),
    "negative count": header("binary_little_endian", vertices=-3) + POINTS.tobytes(),
    "count beyond the file": header("binary_little_endian", vertices=10**15) + POINTS.tobytes(),
    "short line": b"ply\nformat\nelement\nend_header\n",
    "property first": b"ply\nformat ascii 1.0\nproperty float x\nend_header\n",
    "doubled property": header("binary_little_endian", properties="property float x\n" * 3)
    + POINTS.tobytes(),
    "faces first": header("ascii", before="element face 1\nproperty list uchar int i\n")
    + b"3 0 1 2\n1 2 3\n",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_sentence(tmp_path, name):
    file = tmp_path / "a.ply"
    file.write_bytes(BAD[name])
    with pytest.raises(SceneProblem, match=r"scene 's', .*a.ply: is not a PLY mesh that opens: "):
        read_vertices_m("s", file)


def test_a_missing_file(tmp_path):
    with pytest.raises(SceneProblem, match=r"a.ply: cannot be read \(No such file"):
        read_vertices_m("s", tmp_path / "a.ply")
