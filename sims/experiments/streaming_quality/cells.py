"""The cells: an arm's run at a seed, trained."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from decentra import build
from decentra.config import RunConfig, config_hash
from sims.experiments.paired.cells import Key, Record, played
from sims.experiments.paired.swarm import swarm_losses
from sims.experiments.streaming_quality.arms import ARMS, run_of
from sims.experiments.streaming_quality.costs import encoded_bytes


def play(arm: str, seed: int, size: RunConfig, cache: Path) -> Record:
    """Train one cell."""
    start_s, run = time.perf_counter(), run_of(ARMS[arm], size, seed)
    return Record(
        arm=arm,
        seed=seed,
        config=config_hash(run),
        tokens_a_round=run.outer.fragments * run.planned_tokens,
        losses=tuple(swarm_losses(run, cache)),
        bytes_a_round=sum(encoded_bytes(run)),
        wall_s=time.perf_counter() - start_s,
    )


def keys(arms: Sequence[str], seeds: Sequence[int], size: RunConfig) -> list[Key]:
    """The cells of these arms, all arms of a seed before the next seed."""
    return [(arm, seed, config_hash(run_of(ARMS[arm], size, seed))) for seed in seeds for arm in arms]


def sweep(arms: Sequence[str], seeds: Sequence[int], size: RunConfig, path: Path, cache: Path, processes: int) -> Iterator[Record]:
    """Play the cells that `path` lacks."""
    one = functools.partial(play, size=size, cache=cache)
    return played(keys(arms, seeds, size), one, path, processes, lambda: build.text(size, cache))
