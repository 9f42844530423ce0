"""Where in its slot a member is: by time all slots end together, and who comes late goes on where the others are, at their rate."""

import dataclasses
import itertools

import pytest
from stories import follower, swarm_of

from decentra.config import OuterConfig
from decentra.rounds.phase import Phase
from decentra.train.pace import steps_to_take
from decentra.train.schedule import slot_tokens
from decentra.types import SlotPlan
from sims.experiments.protocol_fuzz import machines
from sims.experiments.protocol_fuzz.machines import STEP_S
from sims.experiments.protocol_fuzz.swarm import Swarm, play

LIMIT_S = 400.0
BUDGET_S = 20.0


@pytest.fixture
def steps(monkeypatch):
    """Every inner step of every node: (sync, node, when it ended, T + f Q)."""
    log = []

    def recorded(plan, taken, clock):
        for done in steps_to_take(plan, taken, clock):
            node = clock.__self__
            tokens = slot_tokens(plan.tokens_committed, plan.tokens_last_sync, *done)
            log.append((plan.sync, node.name, clock() + node.step_s, tokens))
            yield done

    monkeypatch.setattr(machines, "steps_to_take", recorded)
    return log


def at_equal_phase(steps, sync, late, peer, tokens_a_second):
    """How far the rate's argument of the late one is from its peer's at the same moment, in seconds of progress: the largest."""
    mine = [(at_s, tokens) for s, name, at_s, tokens in steps if (s, name) == (sync, late)]
    others = [(at_s, tokens) for s, name, at_s, tokens in steps if (s, name) == (sync, peer)]
    worst = 0.0
    for at_s, tokens in mine:
        near_s, near = min(others, key=lambda other: abs(other[0] - at_s))
        worst = max(worst, abs(tokens - near - tokens_a_second * (at_s - near_s)) / tokens_a_second)
    return len(mine), worst


@pytest.mark.parametrize("overlap_steps", [0, 3])
@pytest.mark.parametrize("budget_s", [0.0, BUDGET_S])
def test_a_restarted_member_goes_on_at_the_rate_of_its_peers_and_offers_with_them(steps, budget_s, overlap_steps):
    async def story(swarm):
        leader = await swarm.when_leader("offers")
        victim = follower(swarm, leader)
        sync = swarm.newest().state.sync + 1
        await swarm.until(lambda: swarm.newest().state.sync == sync, step_s=0.01)
        state, start = swarm.newest().state, swarm.now()
        await swarm.sleep(7.0)
        swarm.kill(victim)
        await swarm.sleep(2.0)
        swarm.boot(victim)
        begun = len(steps)
        await swarm.until(lambda: swarm.newest().state.sync > sync, 100.0, step_s=0.01)
        assert victim.name in swarm.counted(sync), "not a sync later"
        assert swarm.now() - start < 1.1 * BUDGET_S + 1.0
        peer = next(n for n in swarm.nodes if n is not victim)
        after = [each for each in steps[begun:] if each[1] == victim.name] + [each for each in steps if each[1] == peer.name]
        num_steps, worst_s = at_equal_phase(after, sync, victim.name, peer.name, state.tokens_last_sync / BUDGET_S)
        assert 30 <= num_steps <= 60 and worst_s < 0.8
        await swarm.finish(LIMIT_S)

    swarm_of(4, story, slot_steps=round(BUDGET_S / STEP_S), budget_s=budget_s, overlap_steps=overlap_steps, stop_syncs=5)


def test_a_late_joiner_is_at_the_phase_of_the_others_from_its_first_step(steps):
    async def story(swarm):
        await swarm.start(3)
        joiner = swarm.new_node(0.1)
        await swarm.until(lambda: swarm.newest().state.sync >= 2)
        swarm.boot(joiner)
        await swarm.until(lambda: any(joiner.name in swarm.counted(s) for s in range(swarm.newest().state.sync)), 100.0)
        sync = swarm.newest().state.sync - 1
        before = next(state for state in swarm.watch.states.values() if state.sync == sync)
        num_steps, worst_s = at_equal_phase(steps, sync, joiner.name, "n0", before.tokens_last_sync / BUDGET_S)
        assert num_steps > 60 and worst_s < 0.8
        await swarm.finish(LIMIT_S)

    play(Swarm(seed=7, start_members=3, stop_syncs=7, slot_steps=100, budget_s=BUDGET_S, overlap_steps=20), story)


@pytest.mark.parametrize("fragments", [1, 2])
def test_by_time_all_offer_together_and_take_as_many_steps_as_they_can(fragments):
    async def story(swarm):
        await swarm.start(3)
        await swarm.until(lambda: swarm.newest().state.sync >= 6, 200.0)
        reports = [r for m in swarm.members() for r in m.history if r.sync is not None and r.sync >= 4]
        assert max(r.times_s["wait"] for r in reports) < 0.6
        for sync in (4, 5):
            steps = {swarm.by_peer(c.sender).step_s: c.num_steps for c in swarm.entry_of(sync).counted}
            assert steps[0.1] > 1.8 * steps[0.2] > 3.4 * steps[0.4] > 0
        dry = [line for line in swarm.trace if "ran dry before the time did" in line]
        assert any("sync 0:" in line for line in dry) and not any(f"sync {sync}:" in line for line in dry for sync in (4, 5, 6))
        await swarm.finish(LIMIT_S)

    async def unequal(swarm):
        await swarm.found(0.4)
        for step_s in (0.2, 0.1):
            swarm.boot(swarm.new_node(step_s))
        for node in swarm.nodes[1:]:
            await node.booting
        swarm.start = _nothing
        await story(swarm)

    play(Swarm(seed=7, start_members=3, stop_syncs=7, slot_steps=20, budget_s=4.0, fragments=fragments), unequal)


async def _nothing(count):
    return None


def test_a_machine_slower_than_the_budget_says_so_once_and_takes_one_step_a_sync():
    async def story(swarm):
        slow = swarm.new_node(1.7)
        swarm.boot(slow)
        await swarm.until(lambda: swarm.newest().state.sync >= 6, 200.0)
        said = [line for line in swarm.trace if slow.name in line and "shorter than an inner step" in line]
        assert len(said) == 1 and "outer.budget_s = 1" in said[0] and "with 1.7 at least it fits" in said[0]
        counted = [c for sync in range(1, 6) for c in swarm.entry_of(sync).counted if c.sender == slow.peer]
        assert counted and all(c.num_steps == 1 for c in counted)
        await swarm.finish(LIMIT_S)

    swarm_of(2, story, slot_steps=5, budget_s=1.0, stop_syncs=8)


class Clock:
    """Seconds that pass by themselves: each step takes the next of `steps_s`."""

    def __init__(self, *steps_s: float) -> None:
        self.now_s, self.steps_s = 100.0, list(steps_s)

    def __call__(self) -> float:
        return self.now_s

    def take(self, steps) -> list:
        """What the steps complete, as a trainer takes them."""
        found = []
        for done in steps:
            found.append(done)
            self.now_s += self.steps_s.pop(0)
        return found


def timed(ends_s: float, **change) -> SlotPlan:
    return SlotPlan(0, ((0, 100),), 5, 0, 0, False, budget_s=10.0, began_s=98.0, ends_s=ends_s, **change)


def test_no_step_is_begun_that_would_end_after_the_end_but_the_first_always_is() -> None:
    clock = Clock(2.0, 2.0, 2.0, 2.0)
    assert clock.take(steps_to_take(timed(107.0, step_s=2.0), 0, clock)) == [(4.0, 10.0), (6.0, 10.0), (8.0, 10.0)]
    late = Clock(2.0)
    assert late.take(steps_to_take(timed(90.0, step_s=2.0), 0, late)) == [(4.0, 10.0)]
    assert Clock().take(steps_to_take(timed(90.0, step_s=2.0), 3, Clock())) == []


def test_a_step_that_takes_longer_than_those_before_goes_past_the_end_by_itself_alone() -> None:
    clock = Clock(1.0, 1.0, 9.0, 1.0)
    assert len(clock.take(steps_to_take(timed(107.0, step_s=1.0), 0, clock))) == 3


def test_ahead_of_the_certificate_nothing_of_the_slot_is_done_until_it_is_expected() -> None:
    plan, clock = dataclasses.replace(timed(0.0, overlap_steps=9, step_s=1.0), began_s=102.0), Clock(*[1.0] * 4)
    assert clock.take(itertools.islice(steps_to_take(plan, 0, clock), 4)) == [(0.0, 10.0), (0.0, 10.0), (1.0, 10.0), (2.0, 10.0)]


def test_by_number_a_slot_goes_on_from_its_first_step() -> None:
    steps = steps_to_take(SlotPlan(0, (), 10, 0, 0, False, first_step=4), 0)
    assert [next(steps) for _ in range(3)] == [(5, 10), (6, 10), (7, 10)]


BY_TIME = OuterConfig(inner_steps=20, overlap_steps=5, sync="time", budget_s=10.0)


def test_a_slot_ends_before_its_budget_by_what_the_offer_takes_but_by_no_more_than_half() -> None:
    phase, plan = Phase(100.0, step_s=0.1), SlotPlan(3, (), 20, 0, 0, False)
    assert phase.planned(plan, BY_TIME, 100.0, 0).ends_s == 110.0
    phase.leads_s.extend((1.0, 99.0, 2.0))
    assert phase.planned(plan, BY_TIME, 100.0, 0).ends_s == 108.0
    phase.leads_s.extend((99.0,) * 5)
    found = phase.planned(plan, BY_TIME, 100.0, 0)
    assert (found.ends_s, found.num_steps, found.first_step) == (105.0, 50, 0)


def test_who_lands_counts_the_steps_before_as_done_and_ends_with_the_others() -> None:
    phase, plan = Phase(50.0, step_s=0.5), SlotPlan(3, (), 20, 0, 0, False)
    phase.lands(0.6, 106.0, BY_TIME.budget_s)
    found = phase.planned(plan, BY_TIME, 106.0, 0)
    assert (found.began_s, found.ends_s, found.first_step, found.num_steps) == (100.0, 110.0, 12, 20)
    counted = Phase(50.0)
    counted.lands(0.6, 106.0, 0.0)
    assert counted.planned(plan, OuterConfig(inner_steps=20), 106.0, 0).first_step == 12
    counted.lands(1.0, 106.0, 0.0)
    assert counted.planned(plan, OuterConfig(inner_steps=20), 106.0, 0).first_step == 19


def test_the_overlap_of_a_fast_machine_is_the_same_share_of_its_slot() -> None:
    plan = SlotPlan(3, (), 20, 0, 0, False, overlap_steps=5)
    assert [Phase(0.0, step_s=s).planned(plan, BY_TIME, 9.0, 0).overlap_steps for s in (0.5, 0.1, 7.0)] == [5, 25, 1]
