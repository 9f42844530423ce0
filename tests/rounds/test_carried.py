"""What a replica carries uncounted: claimed by the next offer, or dropped with the replica."""

import torch

from decentra.rounds.carried import Carried
from decentra.types import SlotPlan, SlotResult


def plan(fresh):
    return SlotPlan(0, ((0, 100),), 10, 0, 0, False, fresh)


def result(samples):
    return SlotResult(0, 10, samples, 128 * samples, 1.0, 1.0)


def test_with_one_fragment_every_slot_starts_at_the_anchor():
    carried = Carried(1)
    for counted in (True, False):
        carried.took(plan(carried.fresh), result(40))
        assert (carried.samples, carried.tokens) == (40, 40 * 128)
        carried.decided(counted)
        assert (carried.samples, carried.tokens, carried.fresh) == (0, 0, True)


def test_with_more_fragments_what_was_left_out_goes_into_the_next_offer():
    carried = Carried(2)
    carried.took(plan(True), result(40))
    carried.decided(False)
    assert not carried.fresh
    carried.took(plan(False), result(20))
    assert (carried.samples, carried.tokens, carried.steps) == (60, 60 * 128, 20)
    carried.took(plan(False), SlotResult(0, 0, 0, 0, 0.0, 0.0))
    assert (carried.samples, carried.tokens, carried.steps) == (60, 60 * 128, 20), "a dry lease adds nothing and takes nothing"
    carried.decided(True)
    assert (carried.samples, carried.fresh) == (0, False)


def test_a_replica_that_has_the_fragments_of_two_syncs_to_take_over_starts_anew():
    carried = Carried(3)
    carried.took(plan(True), result(40))
    carried.decided(False)
    carried.took(plan(False), result(20))
    carried.decided(False)
    assert (carried.samples, carried.fresh) == (60, False)
    carried.decided(False)
    assert (carried.samples, carried.fresh) == (0, True)


def test_an_abandoned_slot_and_a_restart_drop_it_all():
    carried = Carried(2)
    carried.took(plan(True), result(40))
    carried.took(plan(False), None)
    assert (carried.samples, carried.fresh) == (0, True)
    carried.took(plan(True), result(30))
    carried.restart()
    assert (carried.samples, carried.fresh) == (0, True)


def test_with_overlap_a_replica_that_was_counted_goes_on_and_one_that_was_left_out_starts_anew():
    carried = Carried(1, overlaps=True)
    carried.took(plan(True), result(40))
    carried.decided(True)
    assert (carried.samples, carried.fresh, carried.counted) == (0, False, True)
    carried.took(plan(False), result(40))
    carried.decided(False)
    assert (carried.samples, carried.fresh, carried.counted) == (0, True, False)


def test_a_provisional_point_lasts_until_its_sync_leaves_the_replica_out_or_the_replica_starts_anew():
    points = [torch.full((2,), float(sync)) for sync in range(4)]
    carried = Carried(2, overlaps=True)
    carried.took(plan(True), result(40))
    for sync in range(2):
        carried.goes_on_from(sync, points[sync])
        carried.decided(True, sync % 2)
        carried.took(plan(False), result(40))
    assert (carried.points, carried.point_sync) == ({0: points[0], 1: points[1]}, 1)
    carried.goes_on_from(2, points[2])
    carried.decided(False, 0)
    assert (carried.points, carried.point_sync, carried.fresh) == ({1: points[1]}, -1, False)
    assert carried.samples == 40, "the next offer claims what was left out"
    carried.took(plan(False), result(40))
    carried.goes_on_from(3, points[3])
    carried.took(plan(False), None)
    assert (carried.points, carried.point_sync, carried.fresh) == ({}, -1, True)


def test_with_one_fragment_a_provisional_point_that_was_left_out_goes_with_the_replica():
    carried = Carried(1, overlaps=True)
    carried.took(plan(True), result(40))
    carried.goes_on_from(0, torch.zeros(2))
    carried.decided(False, 0)
    assert (carried.points, carried.point_sync, carried.fresh, carried.samples) == ({}, -1, True, 0)
