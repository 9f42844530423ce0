"""Offers: what is refused by name, second roots, what may be closed over, and until when."""

from __future__ import annotations

import dataclasses

import pytest

from decentra.ledger.state import Member, Part, State
from decentra.rounds.offers import (
    STRAGGLER_FLOOR_S,
    Offer,
    OfferBook,
    close_deadline_s,
    half_offered,
    head_start_s,
    heartbeat_period_s,
    held_everywhere,
    lags_too_far,
    median_share,
    offer_fault,
)

STATE = State(
    r=9, sync=4, lineage="", tokens=0, tokens_last_sync=0, members=(Member("alice", 3, True, 4), Member("bob", 1, True, 4)),
    leases={"alice": ((0, 8), (20, 24))}, fresh_sample=24, pool=(), parts=(), roots=(("", ""),),
)  # fmt: skip
OFFER = Offer(
    signed=b"s", root=b"root", sync=4, fragment=0, sender="alice", incarnation=3, base_sync=3, weight_tokens=256, num_steps=2,
    claim=((0, 8),), codec="int8", num_chunks=5, blocks_digest=b"d", lineage="",
)  # fmt: skip


def fault(state: State = STATE, **change: object) -> str:
    return offer_fault(dataclasses.replace(OFFER, **change), state, 1, 5, "int8", 32)


def test_a_fitting_offer_has_no_fault() -> None:
    assert fault() == "" == fault(claim=((0, 3),), weight_tokens=96) == fault(claim=((0, 8), (20, 24)), weight_tokens=384)
    assert fault(dataclasses.replace(STATE, sync=0), sync=0, base_sync=-1) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sender": "carol"}, "not in the view"),
        ({"incarnation": 2}, "another incarnation"),
        ({"sync": 3, "base_sync": 2}, "for sync 3, due is 4"),
        ({"sync": 5, "base_sync": 4}, "for sync 5, due is 4"),
        ({"lineage": "01"}, "another lineage"),
        ({"fragment": 1}, "fragment 1 is not due"),
        ({"base_sync": 2}, "its base is sync 2, not 3"),
        ({"codec": "fp32"}, "chunks of fp32"),
        ({"num_chunks": 4}, "4 chunks"),
        ({"weight_tokens": 0}, "weight 0 is not that of 8 samples of 32 tokens"),
        ({"weight_tokens": -256}, "weight -256 is not that"),
        ({"weight_tokens": 257}, "weight 257 is not that"),
        ({"weight_tokens": 0, "claim": ()}, "weight 0 is not that of 0 samples"),
        ({"num_steps": 0}, "it took 0 steps"),
        ({"num_steps": 1 << 32}, "it took 4294967296 steps"),
        ({"claim": ((0, 8),) * 3}, "not a prefix of its lease"),
        ({"claim": ((8, 0),)}, "not a prefix of its lease"),
        ({"claim": ((1, 4),)}, "not a prefix of its lease"),
        ({"claim": ((0, 9),)}, "not a prefix of its lease"),
        ({"sender": "bob", "incarnation": 1, "claim": ((0, 1),)}, "not a prefix of its lease"),
    ],
)
def test_an_offer_that_cannot_be_counted_is_refused_by_name(change: dict[str, object], reason: str) -> None:
    assert reason in fault(**change)


def test_a_second_root_of_a_sender_is_refused_and_the_first_stands() -> None:
    book = OfferBook(4)
    assert book.add(OFFER) == "" == book.add(dataclasses.replace(OFFER, signed=b"sent again"))
    assert "a second root of alice for sync 4" in book.add(dataclasses.replace(OFFER, root=b"another"))
    assert book.offers == {"alice": OFFER}
    book.turn(4)
    assert book.offers
    book.turn(5)
    assert not book.offers and book.add(dataclasses.replace(OFFER, root=b"another", sync=5)) == ""


def test_only_what_every_owner_holds_is_closed_over_in_order_of_sender() -> None:
    bob = dataclasses.replace(OFFER, sender="bob", root=b"bobs")
    offers, parts = {"bob": bob, "alice": OFFER}, (Part(0, 1, "x"), Part(1, 1, "y"), Part(2, 1, "x"))
    assert held_everywhere(offers, parts, {"x": [b"root", b"bobs"], "y": [b"bobs", b"root"], "z": []}) == [OFFER, bob]
    assert held_everywhere(offers, parts, {"x": [b"root", b"bobs"], "y": [b"root"]}) == [OFFER]
    assert held_everywhere(offers, parts, {"x": [b"root", b"bobs"]}) == []


def test_half_of_those_waited_for_starts_the_stragglers_clock() -> None:
    assert half_offered(["a", "b", "c"], ["a", "b"]) and half_offered(["a", "b"], ["b"])
    assert not half_offered(["a", "b", "c"], ["a", "x", "y"])


def test_stragglers_get_as_long_again_as_the_first_half_took_and_twice_that_each_attempt() -> None:
    assert close_deadline_s(100.0, 140.0, 0) == 180.0
    assert close_deadline_s(100.0, 140.0, 1) == 220.0
    assert close_deadline_s(100.0, 140.0, 4) == close_deadline_s(100.0, 140.0, 9) == 140.0 + 16 * 40.0
    assert close_deadline_s(100.0, 100.5, 0) == 100.5 + STRAGGLER_FLOOR_S


def test_who_starts_with_a_round_has_twice_the_time_of_a_slot_though_the_half_began_ahead_of_it() -> None:
    for ahead_steps in range(9):
        took_s = 10.0 - ahead_steps
        wait_s = took_s + head_start_s(took_s, float(ahead_steps), 8, 10)
        assert close_deadline_s(took_s - wait_s, took_s, 0) == 20.0
    assert head_start_s(10.0, 5000.0, 0, 10) == 0.0
    assert head_start_s(2.0 * STRAGGLER_FLOOR_S, 5000.0, 5, 10) == 4.0 * STRAGGLER_FLOOR_S, "a round that stood still"
    assert head_start_s(0.1, 5.0, 9, 10) == 10.0, "a last step tells little of how long the others took"
    assert head_start_s(0.1, 5000.0, 10, 10) == 10_000.0, "no step is left to tell how long one takes"


def test_members_speak_fifty_times_in_what_a_phase_still_takes_and_ever_more_often_towards_its_end() -> None:
    assert heartbeat_period_s(100.0, [(5, 10), (2, 10)]) == 100.0 * 8 / 2 / 50
    assert heartbeat_period_s(495.0, [(99, 100)]) == 5.0 / 50
    assert heartbeat_period_s(100.0, []) == heartbeat_period_s(100.0, [(0, 10), (10, 10), (0, 0), (12, 10)]) == 0.0


@pytest.mark.parametrize(
    ("offered", "progress", "share"),
    [
        (0, [], 0.0),
        (0, [(0, 0)], 0.0),
        (0, [(3, 10)], 0.3),
        (1, [], 1.0),
        (1, [(3, 10)], 0.3),
        (2, [(3, 10)], 1.0),
        (0, [(9, 3), (5, 10), (6, 10)], 0.6),
    ],
)
def test_the_others_are_as_far_as_their_median(offered: int, progress: list[tuple[int, int]], share: float) -> None:
    assert median_share(offered, progress) == share


def test_who_lags_is_waited_for_as_long_as_that_gives_more_samples_a_second() -> None:
    assert not lags_too_far(1.0, 2) and not lags_too_far(0.0, 1000) and not lags_too_far(-0.5, 4)
    for count in range(3, 40):
        for lag in (0.01 * i for i in range(1, 100)):
            waits, goes_on = count / (1.0 + lag), count - 1.0
            assert abs(waits - goes_on) < 1e-9 or lags_too_far(lag, count) == (goes_on > waits)
