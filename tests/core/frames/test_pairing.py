"""ImageInfoPairer: the right CameraInfo or a said reason, on lossy topics, late ones and bag loops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core.frames import ImageInfoPairer, PairReason

MS = 1_000_000
S = 1_000 * MS
PERIOD = 33 * MS


def info(fx=500.0, width=640):
    return SimpleNamespace(k=[fx, 0, 320, 0, fx, 240, 0, 0, 1], width=width, height=480)


def play(pairer, messages):
    """Offer ("image" | "info", stamp) messages in order; return the pairs that came out."""
    out = []
    for kind, stamp in messages:
        if kind == "image":
            out += pairer.offer_image(stamp, "optical", stamp)
        else:
            out += pairer.offer_info(stamp, stamp)
    return out


def both(stamps, order=("image", "info")):
    return [(kind, s) for s in stamps for kind in order]


# ---- the normal way ---------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("image", "info"), ("info", "image")])
def test_equal_stamps_pair_at_once_in_either_order(order):
    pairer = ImageInfoPairer()
    for stamp in range(0, 5 * S, PERIOD):
        out = play(pairer, both([stamp], order))
        assert [(p.stamp_ns, p.payload, p.info, p.reason) for p in out] == [
            (stamp, stamp, stamp, PairReason.EXACT)
        ]
    assert pairer.waiting == 0
    assert pairer.describe() == ""


def test_messages_in_bursts_find_each_other():
    stamps = [i * PERIOD for i in range(6)]
    messages = []
    for at in (0, 2, 4):  # two images, then their two infos
        messages += [(kind, s) for kind in ("image", "info") for s in stamps[at : at + 2]]
    out = play(ImageInfoPairer(), messages)
    assert [p.stamp_ns for p in out] == stamps
    assert all(p.info == p.stamp_ns for p in out)


def test_images_leave_in_their_order_when_an_info_is_lost():
    """An info for the second image means that the first image's will not come any more."""
    out = play(ImageInfoPairer(), [("image", 0), ("image", PERIOD), ("info", PERIOD)])
    assert [(p.stamp_ns, p.reason) for p in out] == [(0, PairReason.STATIC), (PERIOD, PairReason.EXACT)]


def test_nearest_within_the_window():
    pairer = ImageInfoPairer(window_ns=5 * MS)
    out = play(pairer, [("info", 100 * MS), ("info", 133 * MS), ("image", 131 * MS)])
    assert (out[0].info, out[0].reason) == (133 * MS, PairReason.NEAREST)
    assert play(pairer, [("image", 150 * MS)]) == []


def test_the_exact_stamp_beats_a_nearer_arrival():
    pairer = ImageInfoPairer(window_ns=50 * MS)
    out = play(pairer, [("info", 100 * MS), ("info", 101 * MS), ("image", 100 * MS)])
    assert (out[0].info, out[0].reason) == (100 * MS, PairReason.EXACT)


def test_the_frame_id_and_the_payload_travel_along():
    pairer = ImageInfoPairer()
    payload = object()
    pairer.offer_info(5, info())
    (pair,) = pairer.offer_image(5, "left_optical", payload)
    assert (pair.frame_id, pair.payload) == ("left_optical", payload)


# ---- B18, B19, B28, B30 -----------------------------------------------------------------------


def test_b18_without_any_camera_info_images_still_flow():
    pairer = ImageInfoPairer()
    stamps = [i * PERIOD for i in range(30)]
    out = play(pairer, [("image", s) for s in stamps])
    assert {p.reason for p in out} == {PairReason.NONE}
    assert [p.stamp_ns for p in out] == stamps  # none lost, none late in the end
    assert pairer.counters.without_info == 30
    assert "no camera_info" in pairer.describe()


def test_b18_nothing_at_all():
    assert ImageInfoPairer().describe() == "no image received, and no camera_info either"


def test_b19_camera_info_that_arrives_after_a_hundred_images():
    pairer = ImageInfoPairer()
    stamps = [i * PERIOD for i in range(110)]
    play(pairer, [("image", s) for s in stamps[:100]])
    out = play(pairer, both(stamps[100:]))
    exact = [p for p in out if p.reason is PairReason.EXACT]
    # at most one more image leaves before its info is waited for again
    assert len(exact) >= 9
    assert all(p.info == p.stamp_ns for p in exact)
    assert pairer.describe() == ""


def test_b19_one_latched_camera_info_serves_all_later_images():
    pairer = ImageInfoPairer()
    play(pairer, [("info", 0)])
    out = play(pairer, [("image", S + i * PERIOD) for i in range(20)])
    assert len(out) == 20
    assert {p.reason for p in out} == {PairReason.STATIC}
    assert {p.info for p in out} == {0}
    assert "stamps of image and camera_info differ" in pairer.describe()


def test_b19_a_latched_camera_info_survives_bag_loops():
    pairer = ImageInfoPairer()
    play(pairer, [("info", 0)])
    out = []
    for _ in range(3):
        out += play(pairer, [("image", 5 * S + i * PERIOD) for i in range(60)])
    assert {p.info for p in out} == {0}
    assert len(out) >= 178


def test_b19_a_static_camera_info_may_be_too_old():
    pairer = ImageInfoPairer(static_max_age_ns=S)
    play(pairer, [("info", 5 * S)])
    out = play(pairer, [("image", 5 * S + 900 * MS + i * PERIOD) for i in range(10)])
    assert [p.reason for p in out][:3] == [PairReason.STATIC] * 3
    assert out[-1].reason is PairReason.NONE


def test_b19_a_static_camera_info_without_a_stamp_never_ages():
    pairer = ImageInfoPairer(static_max_age_ns=S)
    play(pairer, [("info", 0)])
    out = play(pairer, [("image", 50 * S + i * PERIOD) for i in range(10)])
    assert {p.reason for p in out} == {PairReason.STATIC}


def test_b28_zoom_uses_the_new_k_from_its_stamp_on():
    pairer = ImageInfoPairer()
    out = []
    for i in range(20):
        out += pairer.offer_image(i * PERIOD, "optical", i)
        out += pairer.offer_info(i * PERIOD, info(500.0 if i < 10 else 700.0))
    assert [p.info.k[0] for p in out] == [500.0] * 10 + [700.0] * 10


def test_b28_zoom_with_a_camera_info_published_only_on_change():
    pairer = ImageInfoPairer()
    out = list(pairer.offer_info(0, info(500.0)))
    for i in range(1, 21):
        if i == 11:
            out += pairer.offer_info(10 * PERIOD + 1, info(700.0))
        out += pairer.offer_image(i * PERIOD, "optical", i)
    used = {p.payload: p.info.k[0] for p in out}
    assert len(used) == 20
    assert all(used[i] == (500.0 if i <= 10 else 700.0) for i in used)


def test_b28_an_image_taken_before_the_zoom_keeps_the_k_of_its_time():
    pairer = ImageInfoPairer()
    pairer.offer_info(100, info(500.0))
    pairer.offer_image(150, "optical", "before")
    pairer.offer_info(200, info(700.0))
    (pair,) = pairer.flush()
    assert (pair.payload, pair.info.k[0], pair.reason) == ("before", 500.0, PairReason.STATIC)


def test_b30_two_publishers_with_different_k_are_noticed():
    pairer = ImageInfoPairer()
    pairer.offer_info(5, info(500.0))
    pairer.offer_info(5, info(500.0))
    assert pairer.counters.info_conflicts == 0
    pairer.offer_info(5, info(600.0))
    assert pairer.counters.info_conflicts == 1


# ---- lossy topics -----------------------------------------------------------------------------


def test_a_lost_camera_info_delays_one_image_and_no_more():
    pairer = ImageInfoPairer()
    stamps = [i * PERIOD for i in range(12)]
    messages = [m for m in both(stamps) if m != ("info", stamps[5])]
    out = play(pairer, messages)
    by_stamp = {p.stamp_ns: p for p in out}
    assert set(by_stamp) == set(stamps)
    assert by_stamp[stamps[5]].reason is PairReason.STATIC
    assert sum(p.reason is PairReason.EXACT for p in out) == 11


def test_a_lost_image_leaves_nothing_behind():
    pairer = ImageInfoPairer(capacity=8)
    stamps = [i * PERIOD for i in range(200)]
    messages = [m for m in both(stamps) if not (m[0] == "image" and (m[1] // PERIOD) % 3)]
    out = play(pairer, messages)
    assert len(out) == 67
    assert {p.reason for p in out} == {PairReason.EXACT}


def test_it_stays_bounded_and_counts_what_it_loses():
    pairer = ImageInfoPairer(capacity=4, patience=1000)
    out = play(pairer, [("image", i * PERIOD) for i in range(10)])
    assert out == []
    assert pairer.waiting == 4
    assert pairer.counters.dropped == 6
    flushed = pairer.flush()
    assert [p.stamp_ns for p in flushed] == [i * PERIOD for i in range(6, 10)]
    assert pairer.waiting == 0


def test_flush_serves_a_single_image_that_nothing_follows():
    pairer = ImageInfoPairer()
    assert pairer.offer_image(5, "optical", "only") == ()
    (pair,) = pairer.flush()
    assert (pair.payload, pair.reason) == ("only", PairReason.NONE)
    assert pairer.flush() == ()


def test_reset_forgets_stamps_but_keeps_the_calibration():
    pairer = ImageInfoPairer()
    play(pairer, [("info", 5 * S), ("image", 9 * S)])
    pairer.reset()
    assert pairer.waiting == 0
    assert pairer.counters.dropped == 1
    pairer.offer_image(0, "optical", "x")
    (pair,) = pairer.flush()
    assert (pair.info, pair.reason) == (5 * S, PairReason.STATIC)
    assert pairer.counters.jumps == 0


# ---- C32: bag loops, the three cases that break message_filters' Python synchroniser ------------------


def exact_in_second_pass(first, second):
    pairer = ImageInfoPairer(capacity=10)
    play(pairer, first)
    out = play(pairer, second)
    return [p for p in out if p.reason is PairReason.EXACT], pairer


PASS = [i * PERIOD for i in range(300)]


def test_c32_infos_missing_at_the_end_of_the_first_pass():
    first = [m for m in both(PASS) if not (m[0] == "info" and m[1] >= PASS[285])]
    exact, pairer = exact_in_second_pass(first, both(PASS))
    assert len(exact) >= 299  # message_filters: 10
    assert pairer.counters.jumps == 2  # one a stream


def test_c32_every_second_info_missing_in_the_first_pass():
    first = [m for m in both(PASS) if not (m[0] == "info" and (m[1] // PERIOD) % 2)]
    exact, _ = exact_in_second_pass(first, both(PASS))
    assert len(exact) >= 299  # message_filters: 19


def test_c32_another_bag_with_far_earlier_stamps():
    first = [m for m in both([s + 10**6 * S for s in PASS]) if m[1] % 2 or m[0] == "image"]
    exact, _ = exact_in_second_pass(first, both(PASS))
    assert len(exact) >= 299  # message_filters: 0


@pytest.mark.parametrize("order", [("image", "info"), ("info", "image")])
def test_c32_the_pair_after_the_jump_is_served_within_two_frames(order):
    pairer = ImageInfoPairer()
    play(pairer, both([s + 100 * S for s in PASS[:20]], order))
    out = play(pairer, both(PASS[:2], order))
    assert [(p.stamp_ns, p.reason) for p in out] == [(s, PairReason.EXACT) for s in PASS[:2]]


def test_c32_an_info_of_the_old_pass_serves_no_image_of_the_new_one():
    pairer = ImageInfoPairer()
    play(pairer, [*both([100 * S]), ("info", 101 * S)])  # its image was lost
    out = play(pairer, [("image", 0), ("image", 101 * S)]) + list(pairer.flush())
    assert [(p.stamp_ns, p.reason) for p in out] == [(0, PairReason.STATIC), (101 * S, PairReason.STATIC)]


def test_c32_a_message_still_on_its_way_during_the_jump():
    """An info of the old pass arrives after the first image of the new one."""
    pairer = ImageInfoPairer()
    end = 100 * S
    play(pairer, both([end - PERIOD]))
    messages = [("image", end), ("image", 0), ("info", end), ("info", 0), *both(PASS[1:6])]
    out = play(pairer, messages)
    assert {p.stamp_ns for p in out if p.reason is PairReason.EXACT} >= set(PASS[1:6])


def test_c32_a_loop_shorter_than_the_threshold():
    pairer = ImageInfoPairer()
    stamps = [i * PERIOD for i in range(12)]
    for _ in range(5):
        out = play(pairer, both(stamps))
        assert [p.stamp_ns for p in out] == stamps
        assert {p.reason for p in out} == {PairReason.EXACT}


def test_c33_forward_jump_of_an_hour():
    pairer = ImageInfoPairer()
    play(pairer, both([0, PERIOD]))
    out = play(pairer, both([3600 * S, 3600 * S + PERIOD]))
    assert [p.reason for p in out] == [PairReason.EXACT] * 2
    assert pairer.counters.jumps == 0


@pytest.mark.parametrize("rate", [0.1, 10.0])
def test_c34_the_rate_of_play_does_not_matter(rate):
    """Patience counts images, not seconds, so a slow bag or a fast one pair alike."""
    stamps = [int(s / rate) for s in PASS[:50]]
    out = play(ImageInfoPairer(), both(stamps))
    assert len(out) == 50


def test_a15_stamp_zero_and_duplicates():
    pairer = ImageInfoPairer()
    out = play(pairer, both([0, 0, 0]))
    assert {(p.stamp_ns, p.reason) for p in out} == {(0, PairReason.EXACT)}
    assert 1 <= len(out) <= 3


# ---- properties -------------------------------------------------------------------------------

messages = st.lists(
    st.tuples(st.sampled_from(["image", "info"]), st.integers(0, 40).map(lambda i: i * 100 * MS)),
    max_size=120,
)


@settings(deadline=None, max_examples=200)
@given(messages, st.integers(0, 150 * MS), st.integers(1, 6), st.integers(0, 4))
def test_any_order_of_messages_is_bounded_and_accounted_for(sequence, window_ns, capacity, patience):
    pairer = ImageInfoPairer(window_ns, capacity, patience=patience)
    out = []
    for message in sequence:
        out += play(pairer, [message])
        assert pairer.waiting <= capacity
    out += pairer.flush()
    c = pairer.counters
    assert c.images == len(out) + c.dropped
    assert len(out) == c.exact + c.nearest + c.static + c.without_info
    for pair in out:
        if pair.reason is PairReason.EXACT:
            assert pair.info == pair.stamp_ns
        elif pair.reason is PairReason.NEAREST:
            assert 0 < abs(pair.info - pair.stamp_ns) <= window_ns
        elif pair.reason is PairReason.NONE:
            assert pair.info is None
        else:
            assert ("info", pair.info) in sequence


@settings(deadline=None, max_examples=200)
@given(st.sets(st.integers(0, 59)), st.sets(st.integers(0, 59)), st.booleans())
def test_whatever_is_lost_an_image_with_its_info_gets_exactly_that_info(no_image, no_info, info_first):
    """Random loss on both topics, each info at most two messages behind its image."""
    order = ("info", "image") if info_first else ("image", "info")
    lost = {("image", i * PERIOD) for i in no_image} | {("info", i * PERIOD) for i in no_info}
    sequence = [m for m in both(PASS[:60], order) if m not in lost]
    pairer = ImageInfoPairer()
    out = play(pairer, sequence) + list(pairer.flush())
    assert [p.stamp_ns for p in out] == [s for k, s in sequence if k == "image"]
    if info_first:
        for pair in out:
            has_info = ("info", pair.stamp_ns) in sequence
            assert (pair.reason is PairReason.EXACT) == has_info


@pytest.mark.parametrize(
    "wrong", [{"window_ns": -1}, {"capacity": 0}, {"patience": -1}, {"regression_ns": 0}]
)
def test_settings_must_make_sense(wrong):
    with pytest.raises(ValueError, match="must not be negative"):
        ImageInfoPairer(**wrong)
