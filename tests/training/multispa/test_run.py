"""A data set is even, repeats whatever the workers, survives bad scenes and interruptions, leaves nothing half."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.multispa import run as running
from spatial_mllm_training.multispa import spreading
from spatial_mllm_training.multispa.engine import Folders
from spatial_mllm_training.multispa.rows import Row, read_rows
from spatial_mllm_training.multispa.run import Summary, Workers, choose, make_dataset
from spatial_mllm_training.sources import SceneRef
from spatial_mllm_training.sources.simulated import find_scenes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "simulated"
EVERY = dict.fromkeys(tasks.names(), 4)
PLAIN = {"depth_estimation_coor": 6, "depth_estimation_dot": 3, "total_distance": 5}


@pytest.fixture(scope="module")
def refs() -> list[SceneRef]:
    return find_scenes(FIXTURES)


def make(refs: list[SceneRef], out: Path, wanted: dict[str, int] = PLAIN, **how: object) -> Summary:
    return make_dataset(refs, out, wanted, split=None, quiet=True, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(refs: list[SceneRef], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary, list[Row]]:
    out = tmp_path_factory.mktemp("whole") / "data"
    summary = make(refs, out, EVERY)
    return out, summary, list(read_rows(out))


def test_all_26_subtasks_come_from_simulation(whole: tuple[Path, Summary, list[Row]]) -> None:
    _, summary, rows = whole
    assert not summary.failures
    assert set(summary.rows) == set(tasks.names()), summary.missing
    assert Counter(r.question_type for r in rows) == summary.rows
    assert len({r.id for r in rows}) == len(rows)


def test_rows_agree_with_their_task_and_their_images(whole: tuple[Path, Summary, list[Row]]) -> None:
    out, _, rows = whole
    for row in rows:
        task = tasks.get(row.question_type)
        assert task.is_correct(task.parse(row.answer), task.truth_of(row.gt_value)), row.id
        assert task.is_correct(task.parse_strictly(row.answer), task.truth_of(row.gt_value)), row.id
        assert row.question.count("<image>") == len(row.image) == len(row.spatial.k)
        assert len(row.image) in range(task.frame_count, task.max_frame_count + 1)
        for path, source, (width, height) in zip(
            row.image, row.spatial.source_image, row.spatial.size, strict=True
        ):
            image, plain = (cv2.imread(str(out / "images" / p)) for p in (path, source))
            assert image.shape == plain.shape == (height, width, 3)
        dotted = [p for p in row.spatial.points if p.drawn]
        assert bool(dotted) == (task.reference == "dot")
        for point in dotted:
            image = cv2.imread(str(out / "images" / row.image[point.image]))
            found = image[round(point.v_px), round(point.u_px), ::-1].astype(int)
            assert abs(found - point.rgb).sum() < 90, f"{row.id}: the dot is not where the row says"


def test_exact_truth_rounds_to_the_published_value(whole: tuple[Path, Summary, list[Row]]) -> None:
    for row in whole[2]:
        task, exact = tasks.get(row.question_type), row.spatial
        if task.kind == "label":
            assert exact.label == row.gt_value
        elif task.kind == "coordinate":
            width, height = exact.size[-1]
            assert row.gt_value == pytest.approx(
                [exact.truth[0] / width * 1000, exact.truth[1] / height * 1000], abs=0.51
            )
        elif task.kind == "vector":
            assert row.gt_value == pytest.approx([1000 * v for v in exact.truth], abs=1.0)
        else:
            scale = 1000 if task.unit == "m" else 1
            assert row.gt_value == pytest.approx(scale * exact.truth[0], abs=1.0)


def test_finished_folder_holds_only_the_data_set(whole: tuple[Path, Summary, list[Row]]) -> None:
    out, summary, rows = whole
    assert sorted(p.name for p in out.iterdir()) == ["dataset.json", "images", "rows-00000.parquet"]
    record = json.loads((out / "dataset.json").read_text())
    assert record["rows"] == summary.rows and record["digest"] == summary.digest and record["config"]
    used = {path for r in rows for path in (*r.image, *r.spatial.source_image)}
    there = {str(p.relative_to(out / "images")) for p in (out / "images").rglob("*") if p.is_file()}
    assert used == there


def _tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "dataset.json"
    }


def test_ray_workers_give_the_same_bytes_as_this_process(refs: list[SceneRef], tmp_path: Path) -> None:
    alone = make(refs, tmp_path / "alone", seed=3)
    spread = make(refs, tmp_path / "ray", seed=3, workers=Workers(2, memory_gib=0.5))
    other = make(refs, tmp_path / "other", seed=4)
    assert alone.digest == spread.digest != other.digest
    assert _tree(tmp_path / "alone") == _tree(tmp_path / "ray")
    assert spread.worker_peak_mib > 0


def _die(item: object) -> object:
    if item == "bad":
        os._exit(9)
    return item


def test_a_worker_that_dies_costs_its_scene_only() -> None:
    try:
        got = dict(spreading.spread(_die, ["a", "bad", "c"], workers=2, address=None, memory_gib=0.2))
    finally:
        spreading.stop()
    assert got == {0: "a", 2: "c"}


def test_too_little_memory_is_said_at_once() -> None:
    try:
        with pytest.raises(SpatialError, match="4096 GiB but Ray has"):
            list(spreading.spread(_die, ["a"], workers=1, address=None, memory_gib=4096))
    finally:
        spreading.stop()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "a cluster"])
def test_a_cluster_that_does_not_answer_is_said(address: str) -> None:
    with pytest.raises(SpatialError) as caught:
        list(spreading.spread(_die, ["a"], workers=1, address=address, memory_gib=0.2))
    assert caught.value.code is ErrorCode.BACKEND_UNAVAILABLE and f"'{address}'" in caught.value.sentence


def _broken(folder: Path) -> list[SceneRef]:
    """A torn scene file beside a good one."""
    good = FIXTURES / "scene_00100126.npz"
    shutil.copy(good, folder / good.name)
    (folder / "scene_00100122.npz").write_bytes(good.read_bytes()[:200_000])
    return find_scenes(folder)


def test_bad_scene_is_named_the_others_complete_and_nothing_half_remains(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    out = tmp_path / "out"
    summary = make(_broken(tmp_path / "scenes"), out)
    (sentence,) = summary.failures
    assert "scene_00100122" in sentence and "\n" not in sentence and "Traceback" not in sentence
    assert summary.rows == PLAIN, "what one scene lacks the other gives"
    assert {r.spatial.scene for r in read_rows(out)} == {"scene_00100126"}
    assert [p.name for p in (out / "images").iterdir()] == ["scene_00100126"]
    assert not [p for p in out.rglob("*") if ".part" in p.name]

    # the same command after the scene was mended tries it again
    shutil.copy(FIXTURES / "scene_00100122.npz", tmp_path / "scenes")
    again = make(find_scenes(tmp_path / "scenes"), out)
    assert not again.failures
    assert {r.spatial.scene for r in read_rows(out)} == {"scene_00100126", "scene_00100122"}
    fresh = make(find_scenes(tmp_path / "scenes"), tmp_path / "fresh")
    assert again.digest == fresh.digest


def test_two_scenes_of_one_name(refs: list[SceneRef], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    shutil.copy(FIXTURES / "scene_00100122.npz", tmp_path / "a")
    summary = make([*refs, *find_scenes(tmp_path / "a")], tmp_path / "out")
    (sentence,) = summary.failures
    assert "scene_00100122" in sentence and str(tmp_path / "a") in sentence and "another scene" in sentence
    assert summary.scenes == 2 and summary.rows == PLAIN


def test_interrupted_run_goes_on_and_ends_the_same(
    refs: list[SceneRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(refs, tmp_path / "whole")
    out = tmp_path / "cut"
    write = running.write_scene
    calls = []

    def cut_short(ref: SceneRef, *rest: object) -> object:
        calls.append(ref.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return asdict(write(ref, *rest))

    monkeypatch.setattr(
        running,
        "_write",
        lambda ref, chosen, **how: cut_short(ref, chosen[ref.name], "benchmark", *how.values()),
    )
    with pytest.raises(KeyboardInterrupt):
        make(refs, out)
    assert not list(out.glob("rows-*")) and not (out / "dataset.json").exists()
    monkeypatch.undo()
    drafted = {p.name: p.stat().st_mtime_ns for p in Folders(out).drafts("x").parent.iterdir()}
    assert len(drafted) == 2
    again = make(refs, out)
    assert again.digest == whole.digest and _tree(out) == _tree(tmp_path / "whole")


def test_files_that_a_power_cut_left_empty_are_made_again(
    refs: list[SceneRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(refs, tmp_path / "whole")
    out = tmp_path / "cut"
    monkeypatch.setattr(running, "gather", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(refs, out)
    monkeypatch.undo()
    Folders(out).drafts(refs[0].name).write_bytes(b"")
    Folders(out).part(refs[1].name).write_bytes(b"")
    again = make(refs, out)
    assert not again.failures
    assert again.digest == whole.digest and _tree(out) == _tree(tmp_path / "whole")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_rows_that_were_written_elsewhere_are_missed(
    refs: list[SceneRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster whose machines do not share the folder."""
    write, out = running._write, tmp_path / "out"

    def elsewhere(ref: SceneRef, folders: Folders, **how: object) -> object:
        return write(ref, folders=Folders(tmp_path / "elsewhere") if ref is refs[1] else folders, **how)

    monkeypatch.setattr(running, "_write", elsewhere)
    monkeypatch.setattr(Folders, "drafts", lambda self, scene: out / "work" / "drafts" / f"{scene}.json")
    with pytest.raises(SpatialError, match=f"rows of scene '{refs[1].name}' are not in .* share that folder"):
        make(refs, out)
    assert not list(out.glob("rows-*")) and not (out / "dataset.json").exists()


def test_another_data_set_is_not_overwritten(refs: list[SceneRef], tmp_path: Path) -> None:
    make(refs, tmp_path / "out")
    before = _tree(tmp_path / "out")
    with pytest.raises(SpatialError) as caught:
        make(refs, tmp_path / "out", seed=9)
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS and "finished" in caught.value.sentence
    assert _tree(tmp_path / "out") == before


def test_no_scene_of_the_split(refs: list[SceneRef], tmp_path: Path) -> None:
    with pytest.raises(SpatialError, match="none of the 2 scenes belongs to the split 'train'"):
        make_dataset(refs, tmp_path / "out", PLAIN, split="train", quiet=True)
    assert not (tmp_path / "out").exists()


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.dictionaries(st.sampled_from(["g1", "g2", "g3"]), st.integers(0, 30), max_size=3),
        max_size=4,
    ),
    st.integers(0, 80),
)
def test_choice_is_as_large_as_it_can_be_and_even(drafted: dict[str, dict[str, int]], wanted: int) -> None:
    chosen = choose({scene: {"t": groups} for scene, groups in drafted.items()}, {"t": wanted})
    there = sum(n for groups in drafted.values() for n in groups.values())
    taken = [n for scene in chosen.values() for n in scene["t"].values()]
    assert sum(taken) == min(wanted, there)
    for scene, subtasks in chosen.items():
        for group, n in subtasks["t"].items():
            assert 0 < n <= drafted[scene][group]
    groups: Counter[str] = Counter()
    for scene in chosen.values():
        groups.update(scene["t"])
    sizes: Counter[str] = Counter()
    for counts in drafted.values():
        sizes.update(counts)
    sizes = +sizes
    for group, size in sizes.items():
        assert groups[group] >= min(size, wanted // len(sizes)), "no group gets less than its even share"


def test_function_travels_to_workers() -> None:
    """Jobs are partials of module functions: what Ray pickles."""
    import pickle

    job = functools.partial(running._draft, wanted={}, config=None, seed=0, folders=Folders(Path("x")))
    assert pickle.loads(pickle.dumps(job)).keywords["seed"] == 0  # noqa: S301 - our own bytes
