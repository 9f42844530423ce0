"""Every field of every message can be hostile: refused by name, memory bounded, and the round goes on."""

from __future__ import annotations

import pytest
from hostile_messages import Case, cases
from hostile_swarm import Stage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from swarm_harness import Swarm, play

CASES_A_SWARM = 50


def fed(batch: list[Case]) -> Stage:
    """A live swarm that was fed these cases, two thirds as messages to it and the others as answers of a lying member."""
    stage = Stage(Swarm(seed=5, start_members=4, stop_syncs=10**6))

    async def story(swarm: Swarm) -> None:
        await stage.start()
        await stage.play(batch)
        await stage.end()

    play(stage.swarm, story)
    return stage


def hostile(num_cases: int):
    return settings(
        max_examples=num_cases // CASES_A_SWARM, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )(given(st.lists(cases(), min_size=CASES_A_SWARM, max_size=CASES_A_SWARM)))  # fmt: skip


@hostile(1_000)
def test_a_live_swarm_refuses_a_thousand_hostile_messages_by_name_and_goes_on(batch: list[Case]) -> None:
    fed(batch)


@pytest.mark.soak
@hostile(20_000)
def test_a_live_swarm_refuses_twenty_thousand_hostile_messages_by_name_and_goes_on(batch: list[Case]) -> None:
    fed(batch)
