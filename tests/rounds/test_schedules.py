"""Seeded random fault schedules: the invariants of design.md section 5, and progress once faults stop.

More seeds by hand: python tests/rounds/run_schedules.py --seeds 500.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_schedules import run_seed, trace_digest

NUM_SEEDS = 10
NUM_SOAK_SEEDS = 200


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_faults_never_break_the_ledger_and_the_run_ends(seed):
    run_seed(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(NUM_SEEDS, NUM_SOAK_SEEDS))
def test_more_faults_never_break_the_ledger_and_the_run_ends(seed):
    run_seed(seed)


def test_a_schedule_repeats_from_its_seed_whatever_the_hash_seed():
    here = Path(__file__).parent
    outputs = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(here.parents[1])}
        command = [sys.executable, str(here / "run_schedules.py"), "--first", "4", "--seeds", "1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.add(done.stdout.split()[2])
    assert outputs == {trace_digest(run_seed(4))}
