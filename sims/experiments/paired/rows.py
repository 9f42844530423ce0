"""Cells as a CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from sims.experiments.paired.cells import Record
from sims.experiments.paired.intervals import Interval, by_arm, differences, intervals


def write_csv(path: Path, records: Sequence[Record], base: str, more: Mapping[str, Mapping[str, object]]) -> None:
    """A row a cell. difference_percent: to `base` at the same seed. mean and half width: of the arm, over its seeds. more: other
    columns by arm, in whose order the rows are.
    """
    found = intervals(records, more, base)
    rows = [
        {
            "arm": record.arm,
            "seed": record.seed,
            "rounds": len(record.losses) - 1,
            "tokens": (len(record.losses) - 1) * record.tokens_a_round,
            "heldout_loss": f"{record.losses[-1]:.6f}",
            "difference_percent": f"{differences(records, record.arm, base).get(record.seed, math.nan):.4f}",
            "mean_percent": f"{found.get(record.arm, NOTHING).mean:.4f}",
            "half_width_percent": f"{found.get(record.arm, NOTHING).half_width:.4f}",
            **more[record.arm],
            "bytes_a_round": record.bytes_a_round,
            "config": record.config,
        }
        for record in chain.from_iterable(by_arm(records, more).values())
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


NOTHING = Interval(math.nan, math.nan)
"""Of an arm without a pair."""
