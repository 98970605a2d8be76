"""Bundle faults (facts matrix E): each ends in its numbered sentence, nothing executes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.model.bundle import (
    DOTS,
    MATCHER,
    MODEL_PATH_VARIABLE,
    Manifest,
    file_sha256,
    find_bundle,
    open_bundle,
)


@pytest.fixture
def copy(bundle_folder, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_folder, folder)
    return folder


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def rehash(folder, name):
    def change(raw):
        raw["files"][name] = {"sha256": file_sha256(folder / name), "bytes": (folder / name).stat().st_size}

    edit_manifest(folder, change)


def fault_of(folder) -> SpatialError:
    with pytest.raises(SpatialError) as fault:
        SpatialModel.load(folder)
    assert "\n" not in fault.value.sentence
    return fault.value


def test_the_shipped_bundle_verifies_and_its_manifest_round_trips(bundle_folder):
    manifest = open_bundle(bundle_folder).manifest
    assert Manifest.from_json(manifest.to_json(), "copy") == manifest
    assert manifest.depth_w % manifest.grid_w == 0
    assert (bundle_folder / "MODEL_CARD.md").is_file()


BEFORE_DIGITS = {"told_digits": False, "copied_digits": False}
BEFORE_MATCHING = {**BEFORE_DIGITS, "matching": False, "dots_w": 0, "dots_h": 0}


@pytest.mark.parametrize(
    ("has", "version"),
    [
        ((False, False, False), 1),
        ((True, False, False), 2),
        ((False, True, False), 2),
        ((True, True, True), 3),
        ((False, True, True), 3),
    ],
)
def test_a_manifest_is_of_the_first_format_that_can_say_it(bundle_folder, has, version):
    """So that software of before reads every bundle that it can serve, and refuses the others."""
    features = dict(zip(("clips", "pointers", "deep_pointers"), has, strict=True))
    manifest = open_bundle(bundle_folder).manifest
    plain = dataclasses.replace(manifest.prompt, named_letters=False)
    manifest = dataclasses.replace(manifest, prompt=plain, **BEFORE_MATCHING, **features)
    text = manifest.to_json()
    assert json.loads(text)["format_version"] == version
    assert Manifest.from_json(text, "copy") == manifest


def test_letters_for_named_points_are_the_fourth_format(bundle_folder):
    """Software of before does not know the key, so it must not stand where there are none."""
    manifest = open_bundle(bundle_folder).manifest
    for letters in (False, True):
        prompt = dataclasses.replace(manifest.prompt, named_letters=letters)
        text = dataclasses.replace(manifest, prompt=prompt, **BEFORE_MATCHING).to_json()
        raw = json.loads(text)
        assert (raw["format_version"] == 4) == ("named_letters" in raw["prompt"]) == letters
        assert Manifest.from_json(text, "copy").prompt == prompt


def test_matching_is_the_fifth_format(bundle_folder):
    manifest = open_bundle(bundle_folder).manifest
    files = {**manifest.files, MATCHER: ("0" * 64, 1)}
    for matching in (False, True):
        has = {**BEFORE_MATCHING, "matching": matching}
        text = dataclasses.replace(manifest, files=files, **has).to_json()
        assert (json.loads(text)["format_version"] == 5) == matching
        assert Manifest.from_json(text, "copy").matching == matching


def test_matching_without_its_graph_or_without_deep_pointers_is_refused(copy):
    edit_manifest(copy, lambda raw: raw["input"].update(matching=True))
    edit_manifest(copy, lambda raw: raw["files"].pop(MATCHER, None))
    fault = fault_of(copy)
    assert fault.code is ErrorCode.BAD_MANIFEST and MATCHER in fault.sentence
    edit_manifest(copy, lambda raw: raw["input"].update(matching=True, deep_pointers=False))
    assert fault_of(copy).code is ErrorCode.BAD_MANIFEST


def test_dots_are_the_sixth_format(bundle_folder):
    manifest = open_bundle(bundle_folder).manifest
    files = {**manifest.files, DOTS: ("0" * 64, 1), MATCHER: ("0" * 64, 1)}
    for size in ((0, 0), (256, 192)):
        has = {**BEFORE_DIGITS, "dots_w": size[0], "dots_h": size[1]}
        text = dataclasses.replace(manifest, files=files, **has).to_json()
        raw = json.loads(text)
        assert (raw["format_version"] == 6) == ("dots" in raw["input"]) == (size != (0, 0))
        read = Manifest.from_json(text, "copy")
        assert (read.dots_w, read.dots_h) == size


def test_digits_are_the_seventh_format(bundle_folder):
    manifest = open_bundle(bundle_folder).manifest
    for digits in (False, True):
        text = dataclasses.replace(manifest, told_digits=digits, copied_digits=False).to_json()
        raw = json.loads(text)
        assert (raw["format_version"] == 7) == ("told_digits" in raw["input"]) == digits
        assert Manifest.from_json(text, "copy").told_digits == digits


def test_copies_are_the_eighth_format(bundle_folder):
    manifest = open_bundle(bundle_folder).manifest
    for copied in (False, True):
        text = dataclasses.replace(manifest, told_digits=True, copied_digits=copied).to_json()
        raw = json.loads(text)
        assert (raw["format_version"] == 8) == ("copied_digits" in raw["input"]) == copied
        assert Manifest.from_json(text, "copy").copied_digits == copied


def test_copies_of_digits_that_nobody_tells_are_refused(copy):
    edit_manifest(copy, lambda raw: raw["input"].update(copied_digits=True, told_digits=False))
    fault = fault_of(copy)
    assert fault.code is ErrorCode.BAD_MANIFEST and "copies digits" in fault.sentence


def test_a_decoder_of_another_width_than_the_manifest_says_is_refused(copy):
    """With chances of copies or without: read as the other, they would be words."""
    edit_manifest(
        copy, lambda raw: raw["input"].update(copied_digits=not raw["input"].get("copied_digits", False))
    )
    fault = fault_of(copy)
    assert fault.code is ErrorCode.MODEL_SIGNATURE and "logits" in fault.sentence


def test_digits_of_nothing_that_is_told_are_refused(copy):
    edit_manifest(
        copy, lambda raw: raw["input"].update(told_digits=True, deep_pointers=False, matching=False)
    )
    fault = fault_of(copy)
    assert fault.code is ErrorCode.BAD_MANIFEST and "tells digits" in fault.sentence


@pytest.mark.parametrize("size", [[256, 0], [-4, -4], [256], [9000, 192], "many"])
def test_dots_of_no_size_are_refused(copy, size):
    edit_manifest(copy, lambda raw: raw["input"].update(dots=size))
    assert fault_of(copy).code is ErrorCode.BAD_MANIFEST


def test_dots_without_their_graph_or_without_pointers_are_refused(copy):
    edit_manifest(copy, lambda raw: raw["input"].update(dots=[256, 192]))
    edit_manifest(copy, lambda raw: raw["files"].pop(DOTS, None))
    fault = fault_of(copy)
    assert fault.code is ErrorCode.BAD_MANIFEST and DOTS in fault.sentence
    without = dict.fromkeys(("matching", "deep_pointers", *BEFORE_DIGITS), False)
    edit_manifest(copy, lambda raw: raw["input"].update(**without, pointers=False))
    assert "no pointers" in fault_of(copy).sentence


def test_deep_pointers_without_pointers_are_refused(copy):
    edit_manifest(copy, lambda raw: raw["input"].update(pointers=False, deep_pointers=True))
    assert fault_of(copy).code is ErrorCode.BAD_MANIFEST


def test_e50_missing_folder(tmp_path):
    assert fault_of(tmp_path / "none").code is ErrorCode.MODEL_MISSING


def test_e50_missing_file(copy):
    (copy / "lift.onnx").unlink()
    assert fault_of(copy).code is ErrorCode.MODEL_MISSING


@pytest.mark.parametrize("size", [0, 1000])
def test_e50_truncated_file(copy, size):
    path = copy / "vision.onnx"
    path.write_bytes(path.read_bytes()[:size])
    assert fault_of(copy).code is ErrorCode.HASH_MISMATCH


def test_e50_one_flipped_bit(copy):
    path = copy / "decoder.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    fault = fault_of(copy)
    assert fault.code is ErrorCode.HASH_MISMATCH
    assert "decoder.onnx" in fault.sentence


def test_e50_corrupt_graph_with_a_right_hash(copy):
    (copy / "vision.onnx").write_bytes(b"not a graph")
    rehash(copy, "vision.onnx")
    fault = fault_of(copy)
    assert fault.code is ErrorCode.MODEL_SIGNATURE
    assert "vision.onnx" in fault.sentence


def test_e51_other_inputs_are_named(copy):
    node = helper.make_node("Identity", ["pixels"], ["y"])
    value = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    model = helper.make_model(helper.make_graph([node], "g", [value], [out]), ir_version=9)
    model.opset_import[0].version = 18
    onnx.save(model, str(copy / "lift.onnx"))
    rehash(copy, "lift.onnx")
    fault = fault_of(copy)
    assert fault.code is ErrorCode.MODEL_SIGNATURE
    assert "taps" in fault.sentence
    assert "pixels" in fault.sentence


def test_e51_other_sizes_are_named(copy):
    edit_manifest(copy, lambda raw: raw["input"].update(width=raw["input"]["width"] * 2))
    fault = fault_of(copy)
    assert fault.code is ErrorCode.MODEL_SIGNATURE
    assert "image" in fault.sentence


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "a/b.onnx", ".."])
def test_e52_paths_that_leave_the_folder(copy, name):
    edit_manifest(copy, lambda raw: raw["files"].update({name: {"sha256": "0", "bytes": 1}}))
    assert fault_of(copy).code is ErrorCode.UNSAFE_MODEL_FILE


def test_e52_links_that_leave_the_folder(copy, tmp_path):
    outside = tmp_path / "outside.onnx"
    shutil.move(copy / "lift.onnx", outside)
    os.symlink(outside, copy / "lift.onnx")
    assert fault_of(copy).code is ErrorCode.UNSAFE_MODEL_FILE


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "model.pkl", "run.py"])
def test_e54_pickles_and_code_are_refused(copy, name):
    edit_manifest(copy, lambda raw: raw["files"].update({name: {"sha256": "0", "bytes": 1}}))
    assert fault_of(copy).code is ErrorCode.UNSAFE_MODEL_FILE


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"format_version": 99}', '{"format_version": 1, "files": 3}', "\x00"]
)
def test_a_manifest_that_is_none(copy, text):
    (copy / "manifest.json").write_text(text)
    assert fault_of(copy).code is ErrorCode.BAD_MANIFEST


@pytest.mark.parametrize("header", [b"\xff" * 8 + b"{}", b"", (2).to_bytes(8, "little") + b"{}"])
def test_e53_hostile_safetensors(copy, header):
    (copy / "embedding.safetensors").write_bytes(header)
    rehash(copy, "embedding.safetensors")
    assert fault_of(copy).code is ErrorCode.MODEL_SIGNATURE


def test_e61_a_backend_that_is_not_installed(bundle_folder):
    with pytest.raises(SpatialError) as fault:
        SpatialModel.load(bundle_folder, backend="quantum")
    assert fault.value.code is ErrorCode.BACKEND_UNAVAILABLE


def test_a_bundle_is_found_by_name_by_path_and_by_variable(bundle_folder, monkeypatch, tmp_path):
    monkeypatch.delenv(MODEL_PATH_VARIABLE, raising=False)
    monkeypatch.chdir(bundle_folder.parents[1])
    assert find_bundle("").resolve() == bundle_folder.resolve()
    monkeypatch.chdir(tmp_path)
    assert find_bundle(str(bundle_folder)) == bundle_folder
    monkeypatch.setenv(MODEL_PATH_VARIABLE, str(bundle_folder))
    assert find_bundle("") == bundle_folder
    with pytest.raises(SpatialError):
        find_bundle("no-such-model")


def test_the_embedding_table_is_finite(model):
    assert np.isfinite(model._embedding).all()
