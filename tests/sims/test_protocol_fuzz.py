"""Seeded random fault schedules: the invariants of the protocol at every event, and progress once faults stop.

More seeds by hand: python -m sims.experiments.protocol_fuzz --seeds 500.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sims.experiments.protocol_fuzz.campaign import judge, replay_command
from sims.experiments.protocol_fuzz.scenarios import SCENARIOS
from sims.experiments.protocol_fuzz.schedule import SYNCS, Shape

NUM_SEEDS = 10
NUM_SOAK_SEEDS = 200
ROOT = Path(__file__).parents[2]


def holds(seed):
    outcome = judge(seed)
    assert not outcome.fault, f"{outcome.fault}; replay: {replay_command(seed)}\n{outcome.detail}"
    assert outcome.syncs == SYNCS


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_faults_never_break_the_ledger_and_the_run_ends(seed):
    holds(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(NUM_SEEDS, NUM_SOAK_SEEDS))
def test_more_faults_never_break_the_ledger_and_the_run_ends(seed):
    holds(seed)


def fuzz(*options, **environment):
    command = [sys.executable, "-m", "sims.experiments.protocol_fuzz", *options]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, check=False
    )


def test_a_schedule_repeats_from_its_seed_whatever_the_hash_seed():
    outputs = {fuzz("--first-seed", "4", "--seeds", "1", PYTHONHASHSEED=seed).stdout.split()[2] for seed in ("1", "2")}
    assert outputs == {judge(4).trace_digest}


def test_a_failing_seed_is_one_line_with_the_command_that_replays_it():
    done = fuzz("--first-seed", "0", "--seeds", "1", "--planted", "claim counted twice")
    line = next(line for line in done.stdout.splitlines() if "| replay: " in line)
    assert done.returncode == 1 and "doubled" in line
    command = line.split("| replay: python -m sims.experiments.protocol_fuzz ")[1]
    assert command == '--seeds 1 --first-seed 0 --trace --planted "claim counted twice"'


def test_the_first_two_thousand_seeds_have_every_shape_and_scenario():
    shapes = [Shape.of(seed) for seed in range(2000)]
    assert {shape.peers for shape in shapes} == set(range(2, 17))
    assert {shape.scenario for shape in shapes} == {"", *SCENARIOS}
    assert {(shape.fragments, shape.codec.aggregate, shape.codec.feedback) for shape in shapes} == {
        (fragments, aggregate, feedback) for fragments in (1, 2) for aggregate in ("reduce", "gather") for feedback in (0.0, 1.0)
    }
    assert {(shape.budget_s, shape.weights, shape.overlap_steps) for shape in shapes} == {
        (budget_s, weights, overlap) for budget_s in (0.0, 0.15, 2.0) for weights in ("", "tokens", "normalised") for overlap in (0, 2, 5)
    }
