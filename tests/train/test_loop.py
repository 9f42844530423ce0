"""Slots: leases, steps, abandonment, and the ways in which a swarm of one retraces plain training."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from decentra.config import InnerConfig, ModelConfig
from decentra.data.shards import Shard
from decentra.data.stream import Source
from decentra.model.init import seeded
from decentra.train.evaluate import Heldout
from decentra.train.guard import SlotDropped
from decentra.train.loop import OnStep, OuterPlug, Slot, SlotAbandoned, train, train_plain
from decentra.train.step import Replica, Views, copy_out
from decentra.types import Intervals, SlotPlan, SlotResult

MODEL = ModelConfig(dim=32, num_layers=2, num_heads=2, num_kv_heads=2, vocab_size=64)
INNER = InnerConfig(lr=3e-3, batch_samples=4, warmup_tokens=1000, weight_decay=0.0)
CONTEXT = 16
STEP_TOKENS = INNER.batch_samples * CONTEXT
SHARD = Shard(np.random.default_rng(0).integers(0, 64, 3000).astype(np.uint16), context=CONTEXT)
SOURCE = Source(SHARD, seed=1)

ALL = (frozenset(name for name, _ in seeded(MODEL, 0).named_parameters()),)

Merge = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def outer_step(anchor: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """The outer step of a swarm of one at rate 1 and momentum 0: two kernels, each rounding once."""
    delta = anchor - local
    return anchor - delta


class Solo:
    """A swarm of one in the same process."""

    def __init__(self, replica: Replica, num_syncs: int, num_steps: int, merge: Merge) -> None:
        self.anchor: Views = {name: p.detach().clone() for name, p in replica.model.named_parameters()}
        self.local: Views = {name: torch.zeros_like(view) for name, view in self.anchor.items()}
        self.fragments = ALL
        self.results: list[SlotResult] = []
        self.steps_seen: list[tuple[int, int]] = []
        self.abandon_at: set[tuple[int, int]] = set()
        self._num_syncs, self._num_steps, self._merge = num_syncs, num_steps, merge

    def next_slot(self) -> SlotPlan | None:
        sync, samples = len(self.results), self._num_steps * INNER.batch_samples
        if sync == self._num_syncs:
            return None
        return SlotPlan(
            sync=sync, lease=((sync * samples, (sync + 2) * samples),), num_steps=self._num_steps,
            tokens_committed=sync * samples * CONTEXT, tokens_last_sync=samples * CONTEXT, evaluate=sync % 2 == 0,
        )  # fmt: skip

    def final(self, plan: SlotPlan) -> SlotPlan:
        raise SlotAbandoned("no slot of these overlaps")

    def progress(self, steps_done: int, loss: float, tokens: int) -> bool:
        assert tokens == steps_done * STEP_TOKENS
        self.steps_seen.append((len(self.results), steps_done))
        wanted = self.steps_seen[-1] not in self.abandon_at
        self.abandon_at.discard(self.steps_seen[-1])
        return wanted

    def contribute(self, result: SlotResult) -> None:
        self.results.append(result)
        for name, anchor in self.anchor.items():
            anchor.copy_(self._merge(anchor, self.local[name]))


def replica() -> Replica:
    return Replica(seeded(MODEL, 0), INNER)


def plan(lease: Intervals, num_steps: int) -> SlotPlan:
    return SlotPlan(sync=3, lease=lease, num_steps=num_steps, tokens_committed=0, tokens_last_sync=640, evaluate=False)


def run_slot(replica: Replica, plan: SlotPlan, heldout: Heldout | None, on_step: OnStep) -> SlotResult:
    """A slot from where the replica stands."""
    slot = Slot(replica, SOURCE, plan, heldout)
    slot.take_over(plan, {name: p.detach().clone() for name, p in replica.model.named_parameters()}, ALL)
    slot.run(plan.num_steps, on_step)
    return slot.result()


def always(steps_done: int, loss: float, tokens: int) -> bool:
    return True


@pytest.mark.parametrize(
    ("lease", "num_steps", "steps", "samples"),
    [
        (((0, 40),), 5, 5, 20),
        (((0, 3), (8, 19)), 5, 3, 12),
        (((0, 3),), 5, 1, 3),
        ((), 5, 0, 0),
        (((7, 7),), 5, 0, 0),
    ],
)
def test_a_slot_trains_a_prefix_of_its_lease(lease: Intervals, num_steps: int, steps: int, samples: int) -> None:
    result = run_slot(replica(), plan(lease, num_steps), None, always)
    assert (result.sync, result.num_steps, result.num_samples, result.num_tokens) == (3, steps, samples, samples * CONTEXT)
    assert result.heldout_loss is None
    assert (result.loss > 3 and result.compute_s > 0) if steps else result.loss == result.compute_s == 0.0


def test_bad_steps_do_not_count_in_the_loss_of_a_slot() -> None:
    one, two = replica(), replica()
    steps = iter([1.0, math.nan, 3.0, math.inf])
    one.inner_step = lambda *batch: next(steps)  # type: ignore[method-assign]
    assert run_slot(one, plan(((0, 40),), 4), None, always).loss == 2.0
    two.inner_step = lambda *batch: math.nan  # type: ignore[method-assign]
    assert math.isnan(run_slot(two, plan(((0, 40),), 4), None, always).loss)


def test_a_slot_that_is_dropped_is_told_of_and_the_next_one_trained() -> None:
    one = replica()
    step, calls = one.inner_step, itertools.count(1)

    def dropping(*batch: Any) -> float:
        if next(calls) == 6:
            raise SlotDropped("a bad step", leave=False)
        return step(*batch)

    one.inner_step = dropping  # type: ignore[method-assign]
    plug = Solo(one, num_syncs=3, num_steps=4, merge=outer_step)
    train(one, SOURCE, plug, None)
    assert [(result.fault, result.num_steps) for result in plug.results[:2]] == [("", 4), ("a bad step", 1)]
    assert not plug.results[-1].fault


def test_heldout_loss_is_of_the_anchor() -> None:
    one = replica()
    before = run_slot(replica(), dataclasses.replace(plan((), 1), evaluate=True), Heldout(SHARD, 8), always).heldout_loss
    result = run_slot(one, dataclasses.replace(plan(((0, 40),), 10), evaluate=True), Heldout(SHARD, 8), always)
    assert before is not None and result.heldout_loss == before


def test_an_unwanted_slot_is_abandoned_at_once() -> None:
    seen: list[int] = []
    with pytest.raises(SlotAbandoned, match="step 2 of 5"):
        run_slot(replica(), plan(((0, 40),), 5), None, lambda step, loss, tokens: seen.append(step) or step < 2)
    assert seen == [1, 2]


def test_training_goes_on_after_an_abandoned_slot() -> None:
    one = replica()
    plug = Solo(one, num_syncs=3, num_steps=4, merge=outer_step)
    plug.abandon_at = {(1, 2)}
    checked: OuterPlug = plug
    train(one, SOURCE, checked, Heldout(SHARD, 8))
    assert [result.sync for result in plug.results] == [0, 1, 2]
    assert [result.heldout_loss is not None for result in plug.results] == [True, False, True]
    assert plug.steps_seen[4:10] == [(1, 1), (1, 2), (1, 1), (1, 2), (1, 3), (1, 4)]


@pytest.mark.parametrize(("num_syncs", "num_steps"), [(50, 1), (10, 5)])
def test_slots_retrace_plain_training_bit_for_bit(num_syncs: int, num_steps: int) -> None:
    alone, swarm = replica(), replica()
    losses = train_plain(alone, SOURCE, num_syncs * num_steps)
    plug = Solo(swarm, num_syncs, num_steps, merge=lambda anchor, local: local)
    train(swarm, SOURCE, plug, None)
    assert_same_bits(alone, {name: p for name, p in swarm.model.named_parameters()})
    assert_same_bits(alone, plug.anchor)
    assert sum(result.loss for result in plug.results) / num_syncs == pytest.approx(np.mean(losses), abs=1e-12)


def test_one_step_outer_steps_of_one_peer_retrace_plain_training_bit_for_bit() -> None:
    # Without decay a step is one rounded subtraction b = a - s, and then a - (a - b) gives b back (Fast2Sum, Dekker 1971).
    alone, swarm = replica(), replica()
    losses = train_plain(alone, SOURCE, 50)
    plug = Solo(swarm, num_syncs=50, num_steps=1, merge=outer_step)
    train(swarm, SOURCE, plug, None)
    assert_same_bits(alone, plug.anchor)
    assert [result.loss for result in plug.results] == losses


def test_many_step_outer_steps_of_one_peer_stay_within_rounding_of_plain_training() -> None:
    # Several steps are several roundings, so a - (a - b) may miss b by an ulp.
    alone, swarm = replica(), replica()
    losses = train_plain(alone, SOURCE, 50)
    plug = Solo(swarm, num_syncs=10, num_steps=5, merge=outer_step)
    train(swarm, SOURCE, plug, None)
    assert np.allclose([result.loss for result in plug.results], np.mean(np.reshape(losses, (10, 5)), axis=1), atol=1e-4)


def test_plain_training_can_stop_and_go_on() -> None:
    whole, parts = replica(), replica()
    losses = train_plain(whole, SOURCE, 10)
    first = train_plain(parts, SOURCE, 10, lambda step, loss, tokens: step < 4)
    assert first + train_plain(parts, SOURCE, 6, start_step=4) == losses
    saved = {name: torch.empty_like(p) for name, p in parts.model.named_parameters()}
    copy_out(parts.model, saved)
    assert_same_bits(whole, saved)


def assert_same_bits(left: Replica, right: Views) -> None:
    for name, parameter in left.model.named_parameters():
        assert torch.equal(parameter, right[name]), name


HALVES = tuple(frozenset(name for name in ALL[0] if ("layers.1" in name) is second) for second in (False, True))


class Streaming(Solo):
    """A swarm of one in fragments, whose anchor of the last fragment is known only after the overlap steps of the next slot."""

    def __init__(self, replica: Replica, num_syncs: int, num_steps: int, overlap: int, alpha: float) -> None:
        super().__init__(replica, num_syncs, num_steps, outer_step)
        self.fragments, self.overlap, self.alpha = HALVES, overlap, alpha
        self.finals: list[int] = []
        self.abandon_final = -1

    def next_slot(self) -> SlotPlan | None:
        plan = super().next_slot()
        if plan is None or plan.sync == 0 or self.abandon_final == -2:
            return plan
        return dataclasses.replace(plan, fresh=False, overlap_steps=self.overlap, evaluate=False)

    def final(self, plan: SlotPlan) -> SlotPlan:
        self.finals.append(plan.sync)
        if self.abandon_final == plan.sync:
            self.abandon_final = -2
            raise SlotAbandoned("the last sync left this replica out")
        return dataclasses.replace(plan, overlap_steps=0, alpha=self.alpha, evaluate=plan.sync % 2 == 0)

    def contribute(self, result: SlotResult) -> None:
        due = self.fragments[result.sync % 2]
        self.results.append(result)
        for name in due:
            self.anchor[name].copy_(outer_step(self.anchor[name], self.local[name]))


@pytest.mark.parametrize(("overlap", "alpha"), [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0)])
def test_a_slot_that_began_ahead_takes_over_one_fragment_after_its_overlap_steps(overlap: int, alpha: float) -> None:
    one, by_hand = replica(), replica()
    plug = Streaming(one, 5, 4, overlap, alpha)
    anchor = {name: view.clone() for name, view in plug.anchor.items()}
    train(one, SOURCE, plug, Heldout(SHARD, 8))
    assert plug.finals == (list(range(1, 5)) if overlap else [])
    assert [result.heldout_loss is not None for result in plug.results] == [True, False, bool(overlap), False, bool(overlap)]
    parameters = dict(by_hand.model.named_parameters())
    for sync in range(5):
        for step in range(4):
            if sync and step == overlap:
                for name in HALVES[(sync - 1) % 2]:
                    parameters[name].data = torch.lerp(parameters[name].data, anchor[name], 1.0 - alpha)
            train_plain(by_hand, SOURCE, 1, start_step=4 * sync + step)
        for name in HALVES[sync % 2]:
            anchor[name] = outer_step(anchor[name], parameters[name].detach())
    assert_same_bits(one, parameters)
    assert all(torch.equal(anchor[name], plug.anchor[name]) for name in anchor)


@pytest.mark.parametrize("counted", [True, False])
def test_a_provisional_plan_begins_at_the_point_of_one_fragment_and_keeps_it_where_it_was_counted(counted: bool) -> None:
    one, by_hand = replica(), replica()
    point = {name: p.detach() * 0.5 for name, p in one.model.named_parameters()}
    agreed = {name: p.detach() * 0.25 for name, p in one.model.named_parameters()}
    ahead = dataclasses.replace(
        plan(((0, 20),), 5), sync=2, tokens_last_sync=5 * STEP_TOKENS, fresh=False, overlap_steps=5, provisional=True
    )  # fmt: skip
    slot = Slot(one, SOURCE, ahead)
    slot.begin(point, HALVES)
    slot.run(5, always)
    slot.take_over(dataclasses.replace(ahead, alpha=float(counted)), agreed, HALVES)
    slot.run(5, always)
    parameters = dict(by_hand.model.named_parameters())
    for name in HALVES[1]:
        parameters[name].data = point[name].clone()
    train_plain(by_hand, SOURCE, 5)
    for name in () if counted else HALVES[1]:
        parameters[name].data = agreed[name]
    assert_same_bits(one, parameters)
    assert slot.result().num_steps == 5


def test_a_slot_that_is_abandoned_at_its_take_over_is_begun_again() -> None:
    one = replica()
    plug = Streaming(one, 3, 4, 2, 0.5)
    plug.abandon_final = 1
    train(one, SOURCE, plug, None)
    assert plug.finals == [1] and [result.sync for result in plug.results] == [0, 1, 2]
    assert plug.steps_seen[4:10] == [(1, 1), (1, 2), (1, 1), (1, 2), (1, 3), (1, 4)]


def test_a_final_plan_brings_a_longer_lease() -> None:
    one = replica()
    slot = Slot(one, SOURCE, dataclasses.replace(plan(((0, 9),), 5), fresh=False, overlap_steps=3))
    slot.run(3, always)
    assert slot.result().num_samples == 8, "whole batches alone, for more may come"
    slot.take_over(plan(((0, 9), (20, 31)), 5), {name: p.detach().clone() for name, p in one.model.named_parameters()}, ALL)
    slot.run(5, always)
    assert (slot.result().num_steps, slot.result().num_samples) == (5, 20)
