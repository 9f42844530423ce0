"""When state steps back, by how much, and for how long a snapshot is pinned: arithmetic, no clock."""

import math

import pytest

from decentra.rounds.pacing import LOW_SHARE, PIN_S, STALLED_S, Pacer, Pins, RoundTrip

QUIET_S, RATE = 0.25, 1e6


def test_state_takes_the_whole_link_while_no_round_moves():
    pacer = Pacer()
    assert not pacer.is_busy(10.0, QUIET_S, RoundTrip())


def test_state_steps_back_while_a_round_stream_moves_and_shortly_after_it():
    pacer = Pacer(round_streams=1, last_round_s=10.0)
    assert pacer.is_busy(10.0 + STALLED_S - 0.1, QUIET_S, RoundTrip())
    pacer.round_streams = 0
    assert pacer.is_busy(10.2, QUIET_S, RoundTrip())
    assert not pacer.is_busy(10.3, QUIET_S, RoundTrip())


def test_a_round_stream_that_waits_for_its_receiver_holds_nobody_up():
    pacer = Pacer(round_streams=1, last_round_s=10.0)
    assert not pacer.is_busy(10.1 + STALLED_S, QUIET_S, RoundTrip())


def test_a_pause_of_the_round_too_short_for_state_frames_is_not_used():
    pacer = Pacer(last_round_s=10.0)
    pacer.low_sent(8.0, 9.0)
    assert pacer.is_busy(11.9, QUIET_S, RoundTrip()) and not pacer.is_busy(12.1, QUIET_S, RoundTrip())


def test_all_state_streams_together_get_their_share_of_a_busy_link_and_are_never_starved():
    pacer, size = Pacer(), 100_000
    turns = [pacer.low_turn_s(5.0, size, RATE, True) for _ in range(8)]
    assert turns == pytest.approx([5.0 + n * size / (LOW_SHARE * RATE) for n in range(1, 9)])


def test_a_frame_that_leaves_slower_than_the_rate_says_sets_the_share():
    pacer = Pacer()
    asked = pacer.low_turn_s(0.0, 1000, RATE, True)
    pacer.low_sent(asked, asked + 2.0)
    after = pacer.low_turn_s(asked + 2.0, 0, RATE, True) - asked
    assert 2.0 / after == pytest.approx(LOW_SHARE)


def test_an_idle_link_forgets_what_was_reserved_on_a_busy_one():
    pacer = Pacer()
    for _ in range(100):
        pacer.low_turn_s(0.0, 1_000_000, RATE, True)
    pacer.low_turn_s(1.0, 1000, RATE, False)
    assert pacer.low_turn_s(1.0, 1000, RATE, True) < 1.1


def test_control_that_takes_twice_its_idle_round_trip_slows_state_and_jitter_does_not():
    trip = RoundTrip()
    assert not trip.congested(), "nothing is known yet"
    for _ in range(20):
        trip.saw(0.1)
    for _ in range(10):
        trip.saw(0.19)
    assert not trip.congested()
    for _ in range(10):
        trip.saw(0.5)
    assert trip.congested() and Pacer().is_busy(0.0, QUIET_S, trip)
    for _ in range(30):
        trip.saw(0.1)
    assert not trip.congested()
    local = RoundTrip()
    for measured in (0.001, 0.02, 0.001, 0.03):
        local.saw(measured)
    assert not local.congested()


def test_a_route_that_got_longer_for_good_is_the_new_idle_in_the_end():
    trip = RoundTrip()
    trip.saw(0.02)
    for _ in range(1000):
        trip.saw(0.3)
    assert not trip.congested() and math.isclose(trip.idle_s, 0.3, rel_tol=0.1)


def test_a_pin_lives_while_bytes_flow_and_expires_after_and_the_oldest_comes_first():
    pins = Pins()
    assert pins.oldest(0.0) is None
    pins.touch(8, 0.0)
    pins.touch(16, 10.0)
    assert pins.oldest(10.0) == 8
    for now in range(0, 200, 20):
        pins.touch(8, float(now))
    assert pins.oldest(190.0) == 8
    pins.touch(16, 200.0)
    assert pins.oldest(180.0 + PIN_S) == 16 and pins.oldest(200.0 + PIN_S) is None
    assert len(pins.touched_s) <= 2
