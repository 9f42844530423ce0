"""python -m sims.experiments.streaming_quality [--out DIR] [--rounds R] [--seeds N] [--arms A,B] [--processes 2] [--size full]

What do streaming fragments, overlap with training, 4 bits and eager updates cost in loss, and what do they save on the link?
Swarms of 4 replicas take 30 inner steps a round on the text of this Python, all with the same tokens at the same seed. Each
swarm is one process that trains, encodes, averages, steps and takes over as nodes do, without a network.

Writes cells.jsonl (a line a finished cell), cells.csv, table.txt and streaming_quality.png to --out; the table goes to stdout
too. Killed, the same command goes on where it was: cells begun are begun again.
"""

from __future__ import annotations

import sys

from sims.experiments.paired.cells import chosen
from sims.experiments.paired.command import asked
from sims.experiments.paired.rows import write_csv
from sims.experiments.paired.sizes import lasting
from sims.experiments.streaming_quality.arms import ARMS, REFERENCE, SIZES
from sims.experiments.streaming_quality.cells import keys, sweep
from sims.experiments.streaming_quality.report import columns, lines_of, plot


def main() -> int:
    """Parse, play what is missing, report."""
    options = asked("streaming_quality", __doc__, list(ARMS), REFERENCE, SIZES)
    size = lasting(options.size, options.rounds or options.size.stop_syncs)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "cells.jsonl"
    for record in sweep(options.arms, options.seeds, size, path, options.cache, options.processes):
        print(f"{record.arm}, seed {record.seed}: {record.losses[-1]:.4f} nats after {record.wall_s:.0f} s", flush=True)
    records = chosen(path, keys(options.arms, options.seeds, size))
    title = f"{size.start_members} replicas, {size.stop_syncs} rounds, {len(options.seeds)} seeds"
    write_csv(options.out / "cells.csv", records, REFERENCE, columns(size))
    plot(options.out / "streaming_quality.png", records, size, title)
    text = "\n".join(lines_of(records, size)) + "\n"
    (options.out / "table.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
