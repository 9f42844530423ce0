"""The cells: an arm's run at a seed, trained."""

from __future__ import annotations

import time
from pathlib import Path

from decentra.config import RunConfig, config_hash
from sims.experiments.paired.cells import Record
from sims.experiments.paired.swarm import swarm_losses
from sims.experiments.streaming_quality.arms import run_of
from sims.experiments.streaming_quality.costs import encoded_bytes


def play(arm: str, seed: int, size: RunConfig, cache: Path) -> Record:
    """Train one cell."""
    start_s, run = time.perf_counter(), run_of(arm, seed, size)
    return Record(
        arm=arm,
        seed=seed,
        config=config_hash(run),
        tokens_a_round=run.outer.fragments * run.planned_tokens,
        losses=tuple(swarm_losses(run, cache)),
        bytes_a_round=sum(encoded_bytes(run)),
        wall_s=time.perf_counter() - start_s,
    )
