"""python -m sims.experiments.streaming_quality [--out DIR] [--rounds R] [--seeds N] [--arms A,B] [--processes 2] [--size full]

What do streaming fragments, overlap with training, 4 bits and eager updates cost in loss, and what do they save on the link?
Swarms of 4 replicas take 30 inner steps a round on the text of this Python, all with the same tokens at the same seed. Each
swarm is one process that trains, encodes, averages, steps and takes over as nodes do, without a network.

Writes cells.jsonl (a line a finished cell), cells.csv, table.txt and streaming_quality.png to --out; the table goes to stdout
too. Killed, the same command goes on where it was: cells begun are begun again.
"""

from __future__ import annotations

import sys

from sims.experiments.paired.command import asked, swept, title_of
from sims.experiments.paired.rows import write_csv
from sims.experiments.streaming_quality.arms import ARMS, REFERENCE, SIZES, run_of
from sims.experiments.streaming_quality.cells import play
from sims.experiments.streaming_quality.report import columns, lines_of, plot


def main() -> int:
    """Parse, play what is missing, report."""
    options = asked("streaming_quality", __doc__, list(ARMS), REFERENCE, SIZES)
    size, records = swept(options, play, run_of)
    write_csv(options.out / "cells.csv", records, REFERENCE, columns(size))
    plot(options.out / "streaming_quality.png", records, size, title_of(options, size))
    text = "\n".join(lines_of(records, size)) + "\n"
    (options.out / "table.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
