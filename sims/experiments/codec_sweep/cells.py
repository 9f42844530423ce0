"""The cells of the sweep: an arm's run at a seed, trained."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from decentra import build
from decentra.config import RunConfig, config_hash
from sims.experiments.codec_sweep.arms import ARMS, run_of
from sims.experiments.codec_sweep.data_parallel import data_parallel_losses
from sims.experiments.paired.cells import Key, Record, contribution_bytes, played
from sims.experiments.paired.swarm import swarm_losses


def play(arm_name: str, seed: int, size: RunConfig, cache: Path) -> Record:
    """Train one cell."""
    start_s, arm = time.perf_counter(), ARMS[arm_name]
    run = run_of(arm, size, seed)
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


def keys(arms: Sequence[str], seeds: Sequence[int], size: RunConfig) -> list[Key]:
    """The cells of these arms, all arms of a seed before the next seed."""
    return [(arm, seed, config_hash(run_of(ARMS[arm], size, seed))) for seed in seeds for arm in arms]


def sweep(arms: Sequence[str], seeds: Sequence[int], size: RunConfig, path: Path, cache: Path, processes: int) -> Iterator[Record]:
    """Play the cells that `path` lacks."""
    one = functools.partial(play, size=size, cache=cache)
    return played(keys(arms, seeds, size), one, path, processes, lambda: build.text(size, cache))
