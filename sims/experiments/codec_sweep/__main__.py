"""python -m sims.experiments.codec_sweep [--out DIR] [--rounds R] [--seeds N] [--arms A,B] [--processes 2] [--size full]

What does a codec cost in training? Swarms of 8 replicas take 30 inner steps a round on the text of this Python, each with
another codec and all with the same tokens at the same seed; plain data parallel is the control without local steps. Each swarm
is one process that trains, encodes, averages and steps as nodes do, without a network.

Writes cells.jsonl (a line a finished cell), cells.csv and codec_sweep.png to --out, and a table to stdout. Killed, the same
command goes on where it was: cells begun are begun again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from decentra.config import RunConfig, config_hash
from sims.experiments.codec_sweep.arms import ARMS, REFERENCE, SIZES, lasting, run_of
from sims.experiments.codec_sweep.cells import read, sweep
from sims.experiments.codec_sweep.report import MAX_SEEDS, lines_of, plot, write_csv


def main() -> int:
    """Parse, play what is missing, report."""
    parser = argparse.ArgumentParser(
        prog="python -m sims.experiments.codec_sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/codec_sweep"))
    parser.add_argument("--cache", type=Path, default=Path(".data"), help="where the text is built")
    parser.add_argument("--rounds", type=int, default=0, help="outer steps; 0: as the size has it")
    parser.add_argument("--seeds", type=int, default=3, help=f"seeds 0 to N - 1, at most {MAX_SEEDS}")
    parser.add_argument("--arms", default=",".join(ARMS), help=f"of {', '.join(ARMS)}; {REFERENCE} always takes part")
    parser.add_argument("--processes", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    options = parser.parse_args()
    asked = options.arms.split(",")
    if unknown := [arm for arm in asked if arm not in ARMS]:
        parser.error(f"--arms {unknown[0]!r} is not known; use some of {', '.join(ARMS)}")
    if not 1 <= options.seeds <= MAX_SEEDS or options.processes < 1 or options.rounds < 0:
        parser.error(f"--seeds must lie in 1 to {MAX_SEEDS}, --processes be at least 1 and --rounds not negative")
    size = SIZES[options.size]
    size = lasting(size, options.rounds or size.stop_syncs)
    arms = [arm for arm in ARMS if arm in asked or arm == REFERENCE]
    _run(arms, range(options.seeds), size, options)
    return 0


def _run(arms: list[str], seeds: range, size: RunConfig, options: argparse.Namespace) -> None:
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    path, number = out / "cells.jsonl", len(arms) * len(seeds)
    for record in sweep(arms, seeds, size, path, options.cache, options.processes):
        print(f"{record.arm}, seed {record.seed}: {record.losses[-1]:.4f} nats after {record.wall_s:.0f} s", flush=True)
    wanted = {(arm, seed, config_hash(run_of(ARMS[arm], size, seed))) for arm in arms for seed in seeds}
    records = [record for record in read(path) if (record.arm, record.seed, record.config) in wanted]
    assert len(records) == number, f"{len(records)} of {number} cells are in {path}"
    title = f"{size.start_members} replicas, {size.stop_syncs} rounds, {len(seeds)} seeds"
    write_csv(out / "cells.csv", records)
    plot(out / "codec_sweep.png", records, title)
    print("\n".join(lines_of(records)))


if __name__ == "__main__":
    sys.exit(main())
