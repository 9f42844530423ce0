"""python -m sims.experiments.utilization_table [--out DIR] [--quick]

How fast must a link be for a wanted share of the time to be compute? The table that Streaming DiLoCo published (arXiv
2501.18512), taken again from our own rounds on the virtual clock, with a trainer that only lets time pass; each cell beside
the published one, in steps of the paper's bandwidth grid, and why it is off where it is by more than one.

Writes utilization_table.txt and utilization_table.csv to --out. --quick: a few cells of the smallest model, in seconds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from sims.experiments.utilization_table.latency import latency_lines
from sims.experiments.utilization_table.published import SIZES, WANTED
from sims.experiments.utilization_table.report import cells, lines_of, write_csv
from sims.experiments.utilization_table.rows import ROWS, WHOLE_STEPS

QUICK_ROWS, QUICK_WANTED = ROWS[2:4], (0.8, 0.95)


def main(arguments: list[str] | None = None) -> int:
    """Parse, play, report."""
    parser = argparse.ArgumentParser(
        prog="python -m sims.experiments.utilization_table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/utilization_table"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows, sizes, wanted = (QUICK_ROWS, SIZES[:1], QUICK_WANTED) if options.quick else (ROWS, SIZES, WANTED)
    found = list(cells(rows, sizes, wanted))
    others = [] if options.quick else list(cells(WHOLE_STEPS, sizes, wanted))
    options.out.mkdir(parents=True, exist_ok=True)
    command = f"python -m sims.experiments.utilization_table{' --quick' if options.quick else ''} --out {options.out}"
    text = "\n".join([command, *lines_of(found, others), "", *latency_lines(options.quick)]) + "\n"
    (options.out / "utilization_table.txt").write_text(text, encoding="utf-8")
    write_csv(options.out / "utilization_table.csv", [*found, *others])
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
