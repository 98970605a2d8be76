"""Mailbox: newest wins, nothing is lost silently, no camera starves, nobody waits for ever."""

from __future__ import annotations

import threading
import time

import pytest

from spatial_mllm_core.frames import Mailbox, MailboxCounters


class Clock:
    """A clock that moves when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_newest_item_wins_and_the_loss_is_counted():
    box = Mailbox()
    assert [box.put(i) for i in range(3)] == [False, True, True]
    assert box.take(0).item == 2
    assert box.take(0) is None
    assert box.counters() == MailboxCounters(received=3, dropped=2, served=1)


def test_take_tells_camera_and_waiting_time():
    clock = Clock()
    box = Mailbox(clock)
    box.put("x", "left")
    clock.now += 0.25
    taken = box.take(0)
    assert (taken.camera_name, taken.item, taken.waited_s) == ("left", "x", 0.25)


def test_f72_a_fast_camera_does_not_starve_the_slow_ones():
    box = Mailbox()
    served = []
    for _ in range(40):
        for camera in ("fast", "b", "c"):
            box.put(0, camera)
        box.put(1, "fast")
        served.append(box.take(0).camera_name)
    turns = sorted(served.count(name) for name in ("fast", "b", "c"))
    assert turns == [13, 13, 14]


def test_f72_a_camera_served_never_comes_first():
    box = Mailbox()
    box.put(0, "old")
    box.take(0)
    box.put(1, "old")
    box.put(0, "new")
    assert box.take(0).camera_name == "new"


def test_take_waits_for_a_put_from_another_thread():
    box = Mailbox()
    timer = threading.Timer(0.05, box.put, args=("late",))
    timer.start()
    began = time.monotonic()
    assert box.take(5.0).item == "late"
    assert 0.03 < time.monotonic() - began < 2.0


def test_take_gives_up_in_time():
    began = time.monotonic()
    assert Mailbox().take(0.05) is None
    assert 0.04 < time.monotonic() - began < 2.0


def test_close_wakes_everybody_who_waits():
    box = Mailbox()
    results = []
    waiters = [threading.Thread(target=lambda: results.append(box.take(None))) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.05)
    box.close()
    for waiter in waiters:
        waiter.join(5)
    assert results == [None] * 3
    assert box.take(None) is None


def test_peek_latest_minds_the_age_and_takes_nothing():
    clock = Clock()
    box = Mailbox(clock)
    assert box.peek_latest(1.0) is None
    box.put("a")
    clock.now += 0.5
    assert box.peek_latest(0.5) == "a"
    assert box.peek_latest(0.4) is None
    assert box.take(0).item == "a"
    assert box.peek_latest(0.5) == "a"  # served, and still the latest there is
    assert box.counters().served == 1


def test_peek_latest_of_one_camera_or_of_all():
    clock = Clock()
    box = Mailbox(clock)
    box.put("l", "left")
    clock.now += 1
    box.put("r", "right")
    assert box.peek_latest(9) == "r"
    assert box.peek_latest(9, "left") == "l"
    assert box.peek_latest(9, "front") is None


def test_clear_drops_and_counts():
    box = Mailbox()
    box.put(1)
    box.clear()
    assert box.take(0) is None
    assert box.peek_latest(99) is None
    assert box.counters() == MailboxCounters(received=1, dropped=1, served=0)


def test_counters_per_camera():
    box = Mailbox()
    box.put(1, "left")
    box.put(2, "left")
    box.put(1, "right")
    assert box.counters("left") == MailboxCounters(received=2, dropped=1)
    assert box.counters("right") == MailboxCounters(received=1)
    assert box.camera_names() == ("left", "right")


@pytest.mark.parametrize("n_cameras", [1, 8])
def test_f72_every_item_is_accounted_for_under_load(n_cameras):
    """received = served + dropped + waiting, with as many producers as cameras."""
    box = Mailbox()
    done = threading.Event()

    def produce(name):
        for i in range(300):
            box.put(i, name)

    def consume():
        while box.take(0.2) is not None or not done.is_set():
            pass

    consumer = threading.Thread(target=consume)
    producers = [threading.Thread(target=produce, args=(f"c{i}",)) for i in range(n_cameras)]
    for thread in (consumer, *producers):
        thread.start()
    for thread in producers:
        thread.join(30)
    done.set()
    consumer.join(30)
    assert not consumer.is_alive()
    total = box.counters()
    assert total.received == 300 * n_cameras
    assert total.served + total.dropped == total.received
    assert all(box.counters(f"c{i}").served >= 1 for i in range(n_cameras))


def test_none_is_a_legal_item():
    box = Mailbox()
    box.put(None)
    assert box.take(0).item is None
