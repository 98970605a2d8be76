"""The blind baseline: what it may see, that it finds the rules that help, and that it leaks nothing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.benchmark.blind import ROWS_PER_SUBTASK, Asked, Blind, Example, _Thinned, fit_blind
from spatial_mllm_training.benchmark.data import BenchmarkProblem


def test_it_is_given_words_only(make_row):
    fields = {f.name for f in dataclasses.fields(Asked)}
    assert fields == {"subtask", "coordinates", "variant", "category"}
    for name in tasks.names():
        row = make_row(name, 7)
        asked = Asked.of(row)
        named = tuple((round(p.u_px / 640 * 1000), round(p.v_px / 480 * 1000)) for p in row.spatial.points)
        assert asked.coordinates == named  # as the words say, not the example in the explanation
        assert all(f"[ {x} , {y} ]" in row.question for x, y in asked.coordinates)


def test_changed_truths_images_and_cameras_change_no_answer(every_row):
    blind = fit_blind(every_row(20, split="train", seed=5))
    rows = every_row(6, seed=1)
    others = every_row(6, seed=2)
    swapped = [
        dataclasses.replace(
            row,
            gt_value=other.gt_value,
            answer=other.answer,
            image=tuple("other.jpg" for _ in row.image),
            spatial=dataclasses.replace(
                row.spatial,
                truth=other.spatial.truth,
                label=other.spatial.label,
                k=other.spatial.k[::-1],
                world_from_camera=((0.0,) * 16,) * len(row.image),
                points=(),
            ),
        )
        for row, other in zip(rows, others, strict=True)
    ]
    assert any(a.gt_value != b.gt_value for a, b in zip(rows, swapped, strict=True))
    assert [blind.answer(Asked.of(r)) for r in rows] == [blind.answer(Asked.of(r)) for r in swapped]


def test_benchmark_rows_are_refused(every_row):
    with pytest.raises(BenchmarkProblem, match=r"training rows only; row '.*' belongs to the benchmark"):
        fit_blind([*every_row(2, split="train"), *every_row(1, split="benchmark")])


def test_majority_and_median(make_row):
    words = ["left"] * 7 + ["right"] * 3
    rows = [
        make_row("x_movement", i, truth=TaskValue(label=w), scene=f"s{i}", split="train")
        for i, w in enumerate(words)
    ]
    rows += [
        make_row("displacement_vector", i, truth=TaskValue((0.1 * i, -0.2, 0.05 * i**2)), split="train")
        for i in range(5)
    ]
    blind = fit_blind(rows)
    assert blind.answer(Asked.of(make_row("x_movement"))) == "`left`"
    vector = blind.rules["displacement_vector"].constants[""].values
    assert vector == pytest.approx((0.2, -0.2, 0.2))
    assert (blind.rows, blind.scenes) == (15, 11)
    assert blind.answer(Asked.of(make_row("yaw_angle"))) == ""
    assert blind.rule_of("yaw_angle") == "no training row"


def _comparisons(make_row, rule, split="train", count=60):
    rows = []
    rng = np.random.default_rng(1)
    for i in range(count):
        points = tuple((int(x), int(y)) for x, y in rng.integers(50, 950, (2, 2)))
        variant = ("closer", "farther")[i % 2]
        truth = TaskValue(tuple(float(c) for c in rule(points, variant)))
        rows.append(
            make_row(
                "depth_comparison_coordinate",
                i,
                truth=truth,
                points=points,
                variant=variant,
                split=split,
                scene=f"s{i % 7}",
            )
        )
    return rows


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("first point", lambda points, variant: points[0]),
        ("second point", lambda points, variant: points[1]),
        (
            "lower is closer",
            lambda points, variant: (max if variant == "closer" else min)(points, key=lambda p: p[1]),
        ),
    ],
)
def test_the_rule_that_holds_for_comparisons_is_found(make_row, name, rule):
    blind = fit_blind(_comparisons(make_row, rule))
    chosen = blind.rules["depth_comparison_coordinate"]
    assert (chosen.name, chosen.accuracy) == (name, 100)


def test_depth_by_the_row_of_the_point(make_row):
    # depth falls towards the image's lower edge, as over a floor
    rows = []
    for i, y in enumerate(np.random.default_rng(2).integers(0, 1000, 200).tolist()):
        truth = TaskValue((5.0 - 4.0 * (y // 100) / 10,))
        rows.append(
            make_row(
                "depth_estimation_coor", i, truth=truth, points=((500, y),), split="train", scene=f"s{i % 9}"
            )
        )
    blind = fit_blind(rows)
    chosen = blind.rules["depth_estimation_coor"]
    assert chosen.by == "band"
    assert chosen.accuracy == 100
    asked = Asked("depth_estimation_coor", ((100, 950),), "", "")
    assert tasks.get("depth_estimation_coor").parse(blind.answer(asked)).values[0] == pytest.approx(1.4)


def test_size_by_category(make_row):
    heights = {"chair": 0.9, "cup": 0.1, "wardrobe": 2.0}
    rows = [
        make_row(
            "object_perception_height_estimation",
            i,
            truth=TaskValue((heights[c] * (1 + 0.01 * (i % 5)),)),
            category=c,
            split="train",
            scene=f"s{i % 4}",
        )
        for i, c in enumerate(sorted(heights) * 12)
    ]
    blind = fit_blind(rows)
    chosen = blind.rules["object_perception_height_estimation"]
    assert chosen.by == "category"
    cup = make_row("object_perception_height_estimation", 99, category="cup")
    assert tasks.get(cup.question_type).parse(blind.answer(Asked.of(cup))).values[0] == pytest.approx(
        0.1, rel=0.1
    )
    unknown = make_row("object_perception_height_estimation", 99, category="piano")
    assert blind.answer(Asked.of(unknown))  # the constant over all categories


def test_correspondence_by_copying(make_row):
    rows = []
    for i in range(40):
        x, y = 100 + 20 * i, 900 - 15 * i
        rows.append(
            make_row(
                "visual_correspondence_coor_2_coor",
                i,
                points=((x, y),),
                truth=TaskValue((x + 10.0, float(y))),
                split="train",
                scene=f"s{i % 4}",
            )
        )
    blind = fit_blind(rows)
    assert blind.rules["visual_correspondence_coor_2_coor"].words == "copy the point"
    assert "[ 333 , 444 ]" in blind.answer(Asked("visual_correspondence_coor_2_coor", ((333, 444),), "", ""))


def test_a_fine_rule_that_only_fits_noise_is_not_chosen(make_row):
    rng = np.random.default_rng(4)
    rows = [
        make_row(
            "object_perception_width_estimation",
            i,
            truth=TaskValue((float(rng.uniform(0.5, 0.6)),)),
            category=f"thing {i}",
            split="train",
            scene=f"s{i % 8}",
        )
        for i in range(80)
    ]
    assert fit_blind(rows).rules["object_perception_width_estimation"].by == ""


def test_save_and_load(every_row, tmp_path):
    blind = fit_blind(every_row(12, split="train"))
    assert set(blind.rules) == set(tasks.names())
    blind.save(tmp_path / "blind.json")
    again = Blind.load(tmp_path / "blind.json")
    rows = every_row(5, seed=9)
    assert [again.answer(Asked.of(r)) for r in rows] == [blind.answer(Asked.of(r)) for r in rows]
    assert [again.rule_of(n) for n in tasks.names()] == [blind.rule_of(n) for n in tasks.names()]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 1, "scenes": 1, "rules": {"no_task": {}}}'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "blind.json"
    path.write_text(text)
    with pytest.raises(BenchmarkProblem, match="is not a blind baseline"):
        Blind.load(path)
    with pytest.raises(BenchmarkProblem, match="cannot read the blind baseline"):
        Blind.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("subtask", "rule", "by", "constants"),
    [
        ("yaw_angle", "median", "", {"left": [12.0]}),  # nothing for other keys
        ("yaw_angle", "median", "", {"": "left"}),
        ("yaw_angle", "median", "", {"": [float("inf")]}),
        ("yaw_angle", "median", "", {}),
        ("yaw_angle", "median", "band", {"": [12.0]}),
        ("yaw_angle", "guess", "", {"": [12.0]}),
        ("yaw_movement", "majority", "", {"": "up"}),
        ("displacement_vector", "median", "", {"": [0.1]}),
        ("depth_comparison_coordinate", "first point", "", {"": [1.0, 2.0]}),
    ],
)
def test_a_rule_that_cannot_answer_is_refused(tmp_path, subtask, rule, by, constants):
    path = tmp_path / "blind.json"
    rules = {subtask: {"rule": rule, "by": by, "training_accuracy": 1, "constants": constants}}
    path.write_text(json.dumps({"rows": 1, "scenes": 1, "rules": rules}))
    with pytest.raises(BenchmarkProblem, match="is not a blind baseline"):
        Blind.load(path)


def test_many_rows_are_thinned_evenly_and_all_are_counted(make_row):
    one = make_row("x_movement", split="train")
    words = ["left"] * 9_000 + ["right"] * 11_000
    kept = _Thinned()
    for number, word in enumerate(words):
        kept.add(Example(Asked.of(one), TaskValue(label=word), (number, 0), "s"))
    places = [example.size[0] for example in kept.kept]
    assert ROWS_PER_SUBTASK <= len(places) <= 4 * ROWS_PER_SUBTASK
    assert len(set(np.diff(places))) == 1 and places[-1] > 19_990
    blind = fit_blind(dataclasses.replace(one, id=str(i), gt_value=word) for i, word in enumerate(words))
    assert blind.rows == 20_000 and blind.rules["x_movement"].constants[""].label == "right"


def test_a_question_without_its_points_is_named(make_row):
    row = dataclasses.replace(make_row("depth_estimation_coor"), question="How deep is it?")
    with pytest.raises(BenchmarkProblem, match=r"row 'depth_estimation_coor-.*names 1 point"):
        Asked.of(row)
