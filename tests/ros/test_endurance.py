"""Over and over: life cycles, frames and processes leave no threads, files or memory behind."""

from __future__ import annotations

import os
import time

import pytest
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image
from spatial_mllm_msgs.action import Ask

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


def usage(rig) -> tuple[int, int]:
    """Open files and threads of the bringup process."""
    pid = rig.bringup.process.pid
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def resident_mb(rig) -> float:
    with open(f"/proc/{rig.bringup.process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def test_thirty_life_cycles_leave_nothing_behind(start):
    rig = start(double=True)
    up = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    down = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    nodes = ("perception", "reward_annotator")
    usages = []
    for _ in range(30):
        for node in reversed(nodes):
            assert all(rig.change(t, node) for t in down)
        for node in nodes:
            assert all(rig.change(t, node) for t in up)
        usages.append(usage(rig))
    rig.wait("the camera", rig._is_matched)
    depth = rig.collect(Image, "depth/image")
    rig.publish_good()
    rig.wait("depth after thirty cycles", lambda: depth)
    assert usages[-1][0] <= usages[4][0] + 2
    assert usages[-1][1] <= usages[4][1]
    assert rig.bringup.stop()[0] == 0


def test_a_thousand_frames_and_a_hundred_questions_need_no_more_memory(start, rig_messages):
    rig = start(double=True, frame_queue=50, memory_mb=8)
    depth = rig.collect(Image, "depth/image")

    def frames(count: int) -> None:
        for _ in range(count):
            at = rig.tick()
            rig.publish(
                rig_messages.make_info(at, width=320, height=240),
                rig_messages.make_image(at, width=320, height=240),
            )
            rig.executor.spin_once(timeout_sec=0.005)
        rig.wait("the last one", lambda: depth and rig_messages.stamp_ns(depth[-1]) == rig.now_ns, 30.0)
        depth.clear()

    frames(200)
    rig.ask(Ask.Goal(question="count", max_new_tokens=1))
    before_mb, (files, threads) = resident_mb(rig), usage(rig)
    for _ in range(10):
        frames(100)
        for _ in range(10):
            assert rig.ask(Ask.Goal(question="count", max_new_tokens=1)).result.error_code == 0
    assert resident_mb(rig) - before_mb < 20.0
    assert usage(rig)[0] <= files + 2
    assert usage(rig)[1] <= threads


def test_simulated_time_that_does_not_run_stops_nothing(start):
    """C31: no /clock yet; depth goes on, and the watchdog, on a steady clock, still barks."""
    rig = start(double=True, use_sim_time=True, watchdog_s=0.5)
    depth = rig.collect(Image, "depth/image")
    at = rig.publish_good()
    rig.wait("depth", lambda: depth and depth[-1].header.stamp.sec == at // 10**9)
    rig.wait(
        "the watchdog", lambda: (s := rig.status("perception: input")) and s.message.startswith("no image")
    )


def test_one_that_was_killed_does_not_keep_the_next_from_starting(start):
    """D47: SIGKILL leaves nothing that keeps the next one from starting."""
    rig = start(double=True)
    rig.bringup.process.kill()
    rig.bringup.process.wait(5)
    again = start(double=True)
    depth = again.collect(Image, "depth/image")
    again.publish_good()
    again.wait("depth of the next one", lambda: depth)
    began = time.monotonic()
    assert again.bringup.stop()[0] == 0
    assert time.monotonic() - began < 5
