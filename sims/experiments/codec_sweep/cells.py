"""The cells of the sweep: an arm's run at a seed, trained."""

from __future__ import annotations

import time
from pathlib import Path

from decentra import build
from decentra.config import RunConfig, config_hash
from sims.experiments.codec_sweep.arms import ARMS, run_of
from sims.experiments.codec_sweep.data_parallel import data_parallel_losses
from sims.experiments.paired.cells import Record, contribution_bytes
from sims.experiments.paired.swarm import swarm_losses


def play(arm_name: str, seed: int, size: RunConfig, cache: Path) -> Record:
    """Train one cell."""
    start_s, arm = time.perf_counter(), ARMS[arm_name]
    run = run_of(arm_name, seed, size)
    losses = data_parallel_losses(run, cache) if arm.data_parallel else swarm_losses(run, cache)
    one = contribution_bytes(build.codecs()[arm.codec.up], build.text(run, cache).layout.num_chunks)
    return Record(
        arm=arm_name,
        seed=seed,
        config=config_hash(run),
        tokens_a_round=run.planned_tokens,
        losses=tuple(losses),
        bytes_a_round=one * (run.outer.inner_steps if arm.data_parallel else 1),
        wall_s=time.perf_counter() - start_s,
    )
