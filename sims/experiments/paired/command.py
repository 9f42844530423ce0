"""The command line of an experiment by paired seeds: what to play, and where to."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decentra import build
from decentra.config import RunConfig, config_hash
from sims.experiments.paired.cells import Key, Record, chosen, played
from sims.experiments.paired.intervals import MAX_SEEDS
from sims.experiments.paired.sizes import lasting


@dataclass(frozen=True, slots=True)
class Asked:
    """arms: in the order of the experiment, with the reference. rounds: outer steps of the whole model, 0 for as the size has it."""

    out: Path
    cache: Path
    arms: Sequence[str]
    seeds: range
    rounds: int
    size: RunConfig
    processes: int


def asked(module: str, about: str, arms: Sequence[str], reference: str, sizes: Mapping[str, RunConfig]) -> Asked:
    """What the command line says. Ends the process with a sentence where that cannot be."""
    parser = argparse.ArgumentParser(
        prog=f"python -m sims.experiments.{module}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out") / module)
    parser.add_argument("--cache", type=Path, default=Path(".data"), help="where the text is built")
    parser.add_argument("--rounds", type=int, default=0, help="outer steps of the whole model; 0: as the size has it")
    parser.add_argument("--seeds", type=int, default=3, help=f"seeds 0 to N - 1, at most {MAX_SEEDS}")
    parser.add_argument("--arms", default=",".join(arms), help=f"of {', '.join(arms)}; {reference} always takes part")
    parser.add_argument("--processes", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--size", choices=sorted(sizes), default="full")
    options = parser.parse_args()
    names = options.arms.split(",")
    if unknown := [name for name in names if name not in arms]:
        parser.error(f"--arms {unknown[0]!r} is not known; use some of {', '.join(arms)}")
    if not 1 <= options.seeds <= MAX_SEEDS or options.processes < 1 or options.rounds < 0:
        parser.error(f"--seeds must lie in 1 to {MAX_SEEDS}, --processes be at least 1 and --rounds not negative")
    wanted = [arm for arm in arms if arm in names or arm == reference]
    size = sizes[options.size]
    return Asked(options.out, options.cache, wanted, range(options.seeds), options.rounds, size, options.processes)


Play = Callable[[str, int, RunConfig, Path], Record]
"""(arm, seed, size, cache) -> what came of that cell. Goes into a process of its own, so a function of a module."""

RunOf = Callable[[str, int, RunConfig], RunConfig]
"""(arm, seed, size) -> the `[run]` of that cell."""


def keys(arms: Sequence[str], seeds: Sequence[int], size: RunConfig, run_of: RunOf) -> list[Key]:
    """The cells of these arms, all arms of a seed before the next seed."""
    return [(arm, seed, config_hash(run_of(arm, seed, size))) for seed in seeds for arm in arms]


def sweep(wanted: Sequence[Key], size: RunConfig, play: Play, path: Path, cache: Path, processes: int) -> Iterator[Record]:
    """Play the cells that `path` lacks."""
    return played(wanted, functools.partial(play, size=size, cache=cache), path, processes, lambda: build.text(size, cache))


def swept(options: Asked, play: Play, run_of: RunOf) -> tuple[RunConfig, list[Record]]:
    """(the size played, all cells asked for), what --out lacks played and printed."""
    size = lasting(options.size, options.rounds or options.size.stop_syncs)
    options.out.mkdir(parents=True, exist_ok=True)
    path, wanted = options.out / "cells.jsonl", keys(options.arms, options.seeds, size, run_of)
    for record in sweep(wanted, size, play, path, options.cache, options.processes):
        print(f"{record.arm}, seed {record.seed}: {record.losses[-1]:.4f} nats after {record.wall_s:.0f} s", flush=True)
    return size, chosen(path, wanted)


def title_of(options: Asked, size: RunConfig) -> str:
    """Of a figure."""
    return f"{size.start_members} replicas, {size.stop_syncs} rounds, {len(options.seeds)} seeds"
