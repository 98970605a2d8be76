"""FrameMemory: addressing by stamp, bounds, pins, and stamps that misbehave (faults A15, C32, C33, D40)."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Added, Frame, FrameMemory

MS = 1_000_000
S = 1_000 * MS


def frame(stamp_ns, camera_name="camera", side=4):
    return Frame(stamp_ns, "optical", np.zeros((side, side, 3), np.uint8), camera_name=camera_name)


def filled(memory, stamps, camera_name="camera"):
    for stamp in stamps:
        memory.add(frame(stamp, camera_name))
    return memory


def fault(call, *args, **kwargs):
    with pytest.raises(SpatialError) as caught:
        call(*args, **kwargs)
    return caught.value


# ---- addressing -------------------------------------------------------------------------------


def test_latest_and_at():
    memory = filled(FrameMemory(), [10, 20, 30])
    assert memory.latest().stamp_ns == 30
    assert memory.at(20).stamp_ns == 20
    assert memory.stamps() == (10, 20, 30)
    assert len(memory) == 3


def test_an_empty_memory_says_so():
    memory = FrameMemory()
    for error in (fault(memory.latest), fault(memory.at, 5), fault(memory.latest, "left")):
        assert error.code == ErrorCode.NO_FRAME
    assert memory.stamps("left") == ()


def test_the_nearest_frame_within_the_tolerance():
    memory = filled(FrameMemory(), [100, 200, 300])
    assert memory.at(190, tolerance_ns=10).stamp_ns == 200
    assert memory.at(309, tolerance_ns=10).stamp_ns == 300
    assert memory.at(91, tolerance_ns=10).stamp_ns == 100
    assert fault(memory.at, 189, tolerance_ns=10).code == ErrorCode.NO_FRAME


def test_d40_an_older_stamp_is_expired_and_the_range_is_named():
    memory = filled(FrameMemory(capacity=3), range(0, 100, 10))
    error = fault(memory.at, 50)
    assert error.code == ErrorCode.FRAME_EXPIRED
    assert "70" in error.sentence
    assert "90" in error.sentence


def test_d40_a_newer_stamp_has_not_arrived_yet():
    assert fault(filled(FrameMemory(), [10, 20]).at, 21).code == ErrorCode.FRAME_NOT_YET


def test_a_gap_between_frames_is_neither():
    error = fault(filled(FrameMemory(), [10, 20]).at, 14)
    assert error.code == ErrorCode.NO_FRAME
    assert "10" in error.sentence


def test_cameras_are_apart():
    memory = filled(filled(FrameMemory(capacity=2), [1, 2, 3], "left"), [2, 9], "right")
    assert memory.stamps("left") == (2, 3)
    assert memory.at(2, "right").camera_name == "right"
    assert memory.latest("left").stamp_ns == 3
    assert memory.latest().camera_name == "right"  # the last that arrived
    assert memory.camera_names() == ("left", "right")
    assert fault(memory.at, 9, "left").code == ErrorCode.FRAME_NOT_YET
    assert fault(memory.at, 9, "front").code == ErrorCode.NO_FRAME


# ---- bounds -----------------------------------------------------------------------------------


def test_memory_is_bounded_in_frames_per_camera():
    memory = filled(FrameMemory(capacity=4), range(10))
    assert memory.stamps() == (6, 7, 8, 9)
    assert memory.counters.evicted == 6
    assert memory.counters.added == 10


def test_memory_is_bounded_in_bytes_and_the_first_that_came_leaves():
    memory = FrameMemory(capacity=100, max_bytes=3 * 48)
    filled(memory, [1, 2], "left")
    filled(memory, [1], "right")
    filled(memory, [3], "left")
    assert memory.stamps("left") == (2, 3)
    assert memory.stamps("right") == (1,)
    assert memory.n_bytes == 3 * 48


def test_one_frame_larger_than_the_bound_is_still_served():
    memory = FrameMemory(max_bytes=10)
    memory.add(frame(1))
    memory.add(frame(2))
    assert memory.stamps() == (2,)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5 * S), st.sampled_from("ab"), st.integers(1, 6)), max_size=60))
def test_bounds_order_and_byte_count_hold_for_any_stamps(frames):
    memory = FrameMemory(capacity=5, max_bytes=600)
    for stamp, camera, side in frames:
        outcome = memory.add(frame(stamp, camera, side))
        if outcome in (Added.NEWEST, Added.LATE, Added.JUMP):
            assert memory.at(stamp, camera).stamp_ns == stamp
        for name in "ab":
            stamps = memory.stamps(name)
            assert list(stamps) == sorted(set(stamps))
            assert len(stamps) <= 5
        kept = [memory.at(s, n) for n in "ab" for s in memory.stamps(n)]
        assert memory.n_bytes == sum(f.image_rgb.nbytes for f in kept)
        assert memory.n_bytes <= 600
    c = memory.counters
    assert c.added + c.duplicates + c.too_late == len(frames)


@pytest.mark.parametrize(
    "wrong", [{"capacity": 0}, {"max_bytes": 0}, {"regression_ns": 0}, {"max_pinned": -1}]
)
def test_bounds_must_make_sense(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        FrameMemory(**wrong)


# ---- pins -------------------------------------------------------------------------------------


def test_a_pinned_frame_outlives_the_history():
    memory = filled(FrameMemory(capacity=2), [1, 2])
    kept = memory.pin(1)
    filled(memory, [3, 4, 5])
    assert memory.stamps() == (4, 5)
    assert memory.at(1) is kept
    memory.unpin(1)
    assert fault(memory.at, 1).code == ErrorCode.FRAME_EXPIRED


def test_a_pin_outlives_a_bag_loop_and_clear():
    memory = filled(FrameMemory(), [10 * S])
    kept = memory.pin(10 * S)
    assert memory.add(frame(1 * S)) is Added.JUMP
    assert memory.at(10 * S) is kept
    memory.clear()
    assert memory.at(10 * S) is kept
    memory.clear(pinned=True)
    assert fault(memory.at, 10 * S).code == ErrorCode.NO_FRAME


def test_two_tasks_may_pin_the_same_frame():
    memory = filled(FrameMemory(capacity=1), [1])
    memory.pin(1)
    memory.pin(1)
    memory.add(frame(2))
    memory.unpin(1)
    assert memory.at(1).stamp_ns == 1
    memory.unpin(1)
    memory.unpin(1)  # once more does no harm
    assert memory.pinned() == ()


def test_pins_are_bounded():
    memory = filled(FrameMemory(max_pinned=2), [1, 2, 3])
    memory.pin(1)
    memory.pin(2)
    assert fault(memory.pin, 3).code == ErrorCode.OUT_OF_MEMORY


def test_a_frame_that_is_not_there_cannot_be_pinned():
    assert fault(filled(FrameMemory(), [5]).pin, 6).code == ErrorCode.FRAME_NOT_YET


# ---- stamps that misbehave ----------------------------------------------------------------------


def test_a15_stamp_zero_is_a_stamp():
    assert filled(FrameMemory(), [0]).at(0).stamp_ns == 0


def test_a15_duplicate_stamp_keeps_the_first():
    memory = FrameMemory()
    first = frame(7)
    assert memory.add(first) is Added.NEWEST
    assert memory.add(frame(7)) is Added.DUPLICATE
    assert memory.at(7) is first
    assert memory.counters.duplicates == 1


def test_a15_out_of_order_is_sorted_in():
    memory = filled(FrameMemory(), [10 * MS, 30 * MS])
    assert memory.add(frame(20 * MS)) is Added.LATE
    assert memory.stamps() == (10 * MS, 20 * MS, 30 * MS)
    assert memory.latest().stamp_ns == 30 * MS


def test_a15_older_than_everything_kept_is_dropped():
    memory = filled(FrameMemory(capacity=2), [10 * MS, 20 * MS, 30 * MS])
    assert memory.add(frame(10 * MS)) is Added.TOO_LATE
    assert memory.stamps() == (20 * MS, 30 * MS)


def test_a15_stamp_in_the_future_does_not_poison_the_memory():
    """One frame stamped an hour ahead, then normal ones again: the history starts over at once."""
    memory = filled(FrameMemory(), [1 * S, 3600 * S])
    assert memory.add(frame(2 * S)) is Added.JUMP
    assert memory.latest().stamp_ns == 2 * S
    assert memory.add(frame(3 * S)) is Added.NEWEST


def test_c32_bag_loop_clears_the_history_and_the_next_frame_is_served():
    memory = filled(FrameMemory(), range(0, 10 * S, S))
    assert memory.add(frame(0)) is Added.JUMP
    assert memory.stamps() == (0,)
    assert memory.latest().stamp_ns == 0
    assert memory.counters.jumps == 1


def test_c32_loop_of_a_bag_shorter_than_the_threshold():
    memory = FrameMemory()
    stamps = [i * 33 * MS for i in range(15)]  # half a second
    filled(memory, stamps)
    outcomes = [memory.add(frame(s)) for s in stamps]
    assert outcomes[:2] == [Added.DUPLICATE] * 2
    assert outcomes[2] is Added.JUMP
    assert memory.counters.jumps == 1
    assert memory.latest().stamp_ns == stamps[-1]


def test_c32_one_camera_that_loops_leaves_the_others_alone():
    memory = filled(filled(FrameMemory(), [5 * S, 6 * S], "left"), [5 * S, 6 * S], "right")
    memory.add(frame(0, "left"))
    assert memory.stamps("left") == (0,)
    assert memory.stamps("right") == (5 * S, 6 * S)


def test_c33_forward_jump_of_an_hour_is_just_a_newer_frame():
    memory = filled(FrameMemory(), [1 * S])
    assert memory.add(frame(3601 * S)) is Added.NEWEST
    assert memory.at(1 * S).stamp_ns == 1 * S
    assert memory.counters.jumps == 0


def test_it_may_be_filled_and_read_from_different_threads():
    memory = FrameMemory(capacity=8)
    errors = []

    def write(name):
        for stamp in range(400):
            memory.add(frame(stamp, name))

    def read():
        for _ in range(400):
            try:
                newest = memory.latest()
                memory.at(newest.stamp_ns, newest.camera_name)
                memory.stamps()
            except SpatialError as error:
                if error.code not in (ErrorCode.NO_FRAME, ErrorCode.FRAME_EXPIRED):
                    errors.append(error)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in "abc"]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert len(memory) == 24
