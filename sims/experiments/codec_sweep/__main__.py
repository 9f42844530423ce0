"""python -m sims.experiments.codec_sweep [--out DIR] [--rounds R] [--seeds N] [--arms A,B] [--processes 2] [--size full]

What does a codec cost in training? Swarms of 8 replicas take 30 inner steps a round on the text of this Python, each with
another codec and all with the same tokens at the same seed; plain data parallel is the control without local steps. Each swarm
is one process that trains, encodes, averages and steps as nodes do, without a network.

Writes cells.jsonl (a line a finished cell), cells.csv and codec_sweep.png to --out, and a table to stdout. Killed, the same
command goes on where it was: cells begun are begun again.
"""

from __future__ import annotations

import sys

from sims.experiments.codec_sweep.arms import ARMS, REFERENCE, SIZES, run_of
from sims.experiments.codec_sweep.cells import play
from sims.experiments.codec_sweep.report import lines_of, plot
from sims.experiments.paired.command import asked, swept, title_of
from sims.experiments.paired.rows import write_csv


def main() -> int:
    """Parse, play what is missing, report."""
    options = asked("codec_sweep", __doc__, list(ARMS), REFERENCE, SIZES)
    size, records = swept(options, play, run_of)
    write_csv(options.out / "cells.csv", records, REFERENCE, {name: {"limit_percent": arm.limit_percent} for name, arm in ARMS.items()})
    plot(options.out / "codec_sweep.png", records, title_of(options, size))
    print("\n".join(lines_of(records)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
