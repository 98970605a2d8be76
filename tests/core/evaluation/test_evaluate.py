"""An offline run is judged against the bag's truth; a recording of it replays bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.answers import Answer
from spatial_mllm_core.bags import BagWriter, open_bag
from spatial_mllm_core.bags.message_types import make_message
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation import outputs
from spatial_mllm_core.evaluation.evaluate import (
    Source,
    annotate,
    evaluate_bag,
    evaluate_recording,
)
from spatial_mllm_core.evaluation.outputs import OutputWriter
from spatial_mllm_core.evaluation.plan import standard_plan
from spatial_mllm_core.evaluation.replay import compare, read_recording
from spatial_mllm_core.evaluation.run import Plan, Question, Wanted
from spatial_mllm_core.evaluation.scorer import format_answer
from spatial_mllm_core.evaluation.source import look_around
from spatial_mllm_core.evaluation.truth import BagTruth
from spatial_mllm_core.pipeline import SpatialPipeline

from .conftest import DEPTH_M, FRAME_COUNT, POINT_PX, STEP_M, ArithmeticModel, stamp, write_push_bag


def record(source: Source, output: Path, *, plan: Plan | None = None, as_float: bool = False) -> Path:
    """An offline recording of the arithmetic model."""
    if plan is None:
        with BagTruth(source.path, source.topics) as truth:
            plan = standard_plan(source, truth)
    with OutputWriter(output, with_confidence=True, as_float=as_float) as writer:
        annotate(source, SpatialPipeline(ArithmeticModel()), plan, writer)  # type: ignore[arg-type]
    return output


def pipeline(**options: float) -> SpatialPipeline:
    return SpatialPipeline(ArithmeticModel(**options))  # type: ignore[arg-type]


def test_figures_of_an_offline_run(push_bag: Path) -> None:
    e = evaluate_bag(look_around(push_bag), pipeline())
    assert (e.frames_in, e.frames_answered, e.frames_dropped) == (FRAME_COUNT, FRAME_COUNT, 0)
    assert e.depth is not None
    assert e.depth.abs_rel == pytest.approx(0.1, abs=0.006)
    assert e.depth.images == 3
    assert e.aligned is not None
    assert e.aligned.abs_rel < 0.003
    assert e.duration_s == pytest.approx(1.0)
    # the reference frame is known before its task starts, so it has no reward
    assert [r.stamp_ns for r in e.rewards] == [stamp(i) for i in range(1, FRAME_COUNT)]
    assert [r.true_m for r in e.rewards] == pytest.approx([STEP_M * i for i in range(1, FRAME_COUNT)])
    assert e.trend == 1
    assert e.displacement is not None
    assert e.displacement.direction_deg == pytest.approx(0, abs=1e-4)
    depth, comparison, distance = e.questions
    assert (depth.answer, depth.truth, depth.is_correct) == ("2.100\xa0m", "2.000\xa0m", True)
    assert (comparison.fault[:4], comparison.truth, comparison.is_correct) == ("E506", "(20,\xa030)", False)
    assert (distance.answer, distance.truth, distance.is_correct) == ("0.225\xa0m", "0.250\xa0m", True)
    assert [p.stamp_ns for p in e.pictures] == [stamp(0), stamp(2), stamp(4)]
    assert e.pictures[0].point_px == POINT_PX
    assert e.notes == []


def test_a_model_that_goes_the_wrong_way_is_seen(push_bag: Path) -> None:
    e = evaluate_bag(look_around(push_bag), pipeline(growth=-1.0))
    assert e.displacement is not None
    assert e.displacement.direction_deg == pytest.approx(180)


def test_bag_without_truth_still_shows_everything(tmp_path: Path) -> None:
    path = write_push_bag(tmp_path / "plain", with_depth=False)
    e = evaluate_bag(look_around(path, depth=None), pipeline())
    assert e.depth is None
    assert math.isnan(e.trend)
    assert [q.is_correct for q in e.questions] == [None] * 3
    assert any("no depth" in n or "not judged" in n for n in e.notes)


def test_bag_without_camera_info_says_why_there_is_no_depth(tmp_path: Path) -> None:
    path = write_push_bag(tmp_path / "bare", with_info=False)
    e = evaluate_bag(look_around(path), pipeline())
    assert (e.frames_in, e.frames_answered, e.frames_refused, e.frames_dropped) == (
        FRAME_COUNT,
        0,
        FRAME_COUNT,
        0,
    )
    assert e.frames_words == "6 in, 0 answered, 6 refused for want of calibration, 0 dropped"
    assert [n[:4] for n in e.notes if n.startswith("E")] == ["E201", "E201"] or any(
        "E201" in n for n in e.notes
    )


@pytest.mark.parametrize("as_float", [False, True])
def test_recording_equals_a_fresh_run(push_bag: Path, tmp_path: Path, as_float: bool) -> None:
    source = look_around(push_bag)
    output = record(source, tmp_path / "out.mcap", as_float=as_float)
    verdict = compare(push_bag, source.topics, output, pipeline())
    assert verdict.difference == ""
    assert (verdict.depths, verdict.rewards) == (FRAME_COUNT, FRAME_COUNT - 1)
    # three questions, and the two answers under each reward
    assert verdict.answers == 3 + 2 * (FRAME_COUNT - 1)
    assert verdict.is_equal
    assert verdict.skipped == ()


def test_figures_of_a_recording_equal_those_of_the_run(push_bag: Path, tmp_path: Path) -> None:
    source = look_around(push_bag)
    output = record(source, tmp_path / "out", as_float=True)
    live = evaluate_recording(source, output, pipeline())
    direct = evaluate_bag(source, pipeline())
    assert live.depth == direct.depth
    assert live.rewards == direct.rewards
    assert [replace(q, latency_s=0) for q in live.questions] == [
        replace(q, latency_s=0) for q in direct.questions
    ]
    assert live.trend == direct.trend
    assert [
        np.array_equal(a.depth_m, b.depth_m) for a, b in zip(live.pictures, direct.pictures, strict=True)
    ] == [True] * 3
    assert live.replay is not None
    assert live.replay.is_equal


def test_recording_of_every_second_frame_replays_its_own_rewards(push_bag: Path, tmp_path: Path) -> None:
    source = look_around(push_bag)
    with BagTruth(push_bag, source.topics) as truth:
        plan = standard_plan(source, truth)
    live = replace(plan, wanted={stamp(i): Wanted() for i in (0, 2, 5)})
    output = record(source, tmp_path / "out", plan=live)
    assert [r.stamp_ns for r in read_recording(output).rewards] == [stamp(2), stamp(5)]
    verdict = compare(push_bag, source.topics, output, pipeline())
    assert verdict.is_equal
    assert verdict.rewards == 2


def test_other_depth_is_found_and_named(push_bag: Path, tmp_path: Path) -> None:
    source = look_around(push_bag)
    output = record(source, tmp_path / "out", as_float=True)
    verdict = compare(push_bag, source.topics, output, pipeline(depth_offset_m=1e-6))
    assert not verdict.is_equal
    assert str(stamp(0)) in verdict.difference
    assert "depth" in verdict.difference


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        (outputs.REWARD, "reward", "the reward at"),
        (outputs.REWARD, "confidence", "confidence"),
        (outputs.ANSWERS, "confidence", "the answer to"),
        (outputs.ANSWERS, "text", "text"),
    ],
)
def test_one_changed_bit_is_found(push_bag: Path, tmp_path: Path, name: str, field: str, words: str) -> None:
    source = look_around(push_bag)
    output = record(source, tmp_path / "out")
    changed = tmp_path / "changed"
    with open_bag(output) as old, BagWriter(changed) as new:
        for number, item in enumerate(old.messages()):
            new.add_topic(item.topic, item.type_name)
            value = getattr(item.message, field, None)
            if item.topic == outputs.topic(name) and number > 10 and value is not None:
                flipped = value + "!" if isinstance(value, str) else float(np.nextafter(value, 9))
                setattr(item.message, field, flipped)
            new.write(item.topic, item.message, item.log_time_ns)
    verdict = compare(push_bag, source.topics, changed, pipeline())
    assert words in verdict.difference
    assert not verdict.is_equal


def test_recording_of_another_bag_is_a_difference(push_bag: Path, tmp_path: Path) -> None:
    source = look_around(push_bag)
    output = record(source, tmp_path / "out")
    short = write_push_bag(tmp_path / "short", count=3)
    assert "no frame" in compare(short, source.topics, output, pipeline()).difference


def test_empty_recording_is_refused(push_bag: Path, tmp_path: Path) -> None:
    with pytest.raises(SpatialError) as caught:
        read_recording(push_bag)
    assert caught.value.code is ErrorCode.BAG_UNREADABLE
    assert "annotate" in caught.value.sentence


def test_equal_runs_give_equal_bytes(push_bag: Path, tmp_path: Path) -> None:
    source = look_around(push_bag)
    one = record(source, tmp_path / "a/out.mcap").read_bytes()
    assert one == record(source, tmp_path / "b/out.mcap").read_bytes()


def test_output_has_the_topics_of_the_nodes_with_the_stamps_of_the_images(
    push_bag: Path, tmp_path: Path
) -> None:
    source = look_around(push_bag)
    output = record(source, tmp_path / "out", as_float=True)
    with open_bag(output) as bag:
        counts = {t.name: t.count for t in bag.topics()}
        stamps = [m.message.header.stamp.nanosec for m in bag.messages(["/spatial_mllm/depth/image"])]
        infos = [m.message.header.stamp.nanosec for m in bag.messages(["/spatial_mllm/depth/camera_info"])]
    assert counts == {
        "/spatial_mllm/depth/image": 6,
        "/spatial_mllm/depth/camera_info": 6,
        "/spatial_mllm/depth/confidence": 6,
        "/spatial_mllm/answers": 13,
        "/spatial_mllm/reward": 5,
        "/spatial_mllm/reward/value": 5,
        "/spatial_mllm/reward_task": 1,
        "/spatial_mllm/questions": 3,
    }
    assert stamps == infos == [stamp(i) % 10**9 for i in range(6)]


def test_question_text_survives(push_bag: Path) -> None:
    question = Question("depth_estimation_coor", (1, 2), ((0.1, 1e-9), (3.0, 4.0)), "free «words»", 7)
    assert outputs.question_of_text(outputs.question_text(question)) == question
    assert outputs.question_of_text("{}") is None
    assert outputs.question_of_text("hello") is None


def test_truncated_bag_is_evaluated_as_far_as_it_goes_and_said(push_bag: Path, tmp_path: Path) -> None:
    whole = (push_bag / "push.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) // 2])
    e = evaluate_bag(look_around(cut), pipeline())
    assert 0 < e.frames_answered < FRAME_COUNT
    assert any("partly readable" in n for n in e.notes)


def test_depth_of_another_size_is_not_compared(push_bag: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    with open_bag(push_bag) as old, BagWriter(small) as new:
        for item in old.messages():
            new.add_topic(item.topic, item.type_name)
            message = item.message
            if item.topic.endswith("compressedDepth"):
                from spatial_mllm_core.bags import messages

                message = messages.compressed_depth(stamp(0), "cam", np.full((10, 10), DEPTH_M))
            new.write(item.topic, message, item.log_time_ns)
    e = evaluate_bag(look_around(small), pipeline())
    assert e.depth is None
    assert any("does not fit the image" in n for n in e.notes)


def test_make_message_rejects_unknown_fields() -> None:
    with pytest.raises(TypeError):
        make_message("std_msgs/msg/Float64", value=1.0)


@pytest.mark.parametrize(
    ("kind", "values", "unit", "label", "words"),
    [
        ("scalar", (1.2345,), "m", "", "1.234 m"),
        ("scalar", (math.radians(12.0),), "rad", "", "12.0°"),
        ("vector", (0.1, -0.2, 1.0), "m", "", "(0.100, -0.200, 1.000) m"),
        ("pixel", (200.0, 50.0), "px", "", "(200, 50)"),
        ("label", (), "", "C", "C"),
    ],
)
def test_answers_are_written_for_a_person(kind, values, unit, label, words):
    answer = Answer("", "", "`x`", kind, values, unit, label, "optical", (1,), 1.0, 0.0, "m/1")
    assert format_answer(answer).replace("\u00a0", " ") == words
