"""python -m sims.experiments.unequal_machines [--out DIR] [--seeds N] [--syncs S]

What do machines of speed 1, 1, 2 and 4 give together? Slots of equal steps wait for the slowest; slots that end by time do not,
but then contributions are of unequal steps, which `outer.weights` counts by tokens or normalised. Whole simulated swarms, real
training on the text of this Python.

Writes unequal_machines.csv, a row a swarm as each ends, and unequal_machines.txt to --out. Killed, the same command goes on
where it was.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decentra.config import CodecConfig, DataConfig, InnerConfig, ModelConfig, OuterConfig, RunConfig, config_hash
from decentra.sim.scenario import Scenario
from decentra.sim.simulate import simulate

SPEEDS, STEP_S, STEPS = (1.0, 1.0, 2.0, 4.0), 0.2, 24
BUDGET_S = STEPS * len(SPEEDS) / sum(SPEEDS) * STEP_S
"""Of a slot in which all machines together take as many steps as in one of equal steps."""

TIMED = {"sync": "time", "budget_s": BUDGET_S}
ARMS: dict[str, dict[str, Any]] = {
    "steps": {},
    "time, tokens": {**TIMED, "weights": "tokens"},
    "time, normalised": {**TIMED, "weights": "normalised"},
}
MODEL = ModelConfig(dim=64, num_layers=2, num_heads=2, num_kv_heads=2, tied=True)
WARM_UP_SYNCS = 4
"""Left out of the rate: leases begin at what is planned for all, and double."""

COLUMNS = ("arm", "seed", "config", "share_of_solo", "tokens", "loss", "virtual_s")


def run_of(arm: str, seed: int, syncs: int) -> RunConfig:
    """The `[run]` of a swarm. By time the first slots are short of lease, so a few more follow to get to as many tokens."""
    return RunConfig(
        name="unequal",
        seed=seed,
        start_members=len(SPEEDS),
        stop_syncs=syncs + (WARM_UP_SYNCS if ARMS[arm] else 1),
        eval_samples=128,
        snapshot_every=1000,
        model=MODEL,
        data=DataConfig(vocab_size=512, context=32, max_text_bytes=4_000_000),
        inner=InnerConfig(lr=3e-3, warmup_tokens=20_000, batch_samples=4),
        outer=OuterConfig(inner_steps=STEPS, overlap_steps=STEPS // 4, **ARMS[arm]),
        codec=CodecConfig(),
    )


def play(arm: str, seed: int, syncs: int, cache: Path) -> dict[str, Any]:
    """One swarm: a row of COLUMNS. share_of_solo: its tokens a second over those of its machines alone; loss: of the anchor after
    as many tokens as `syncs` slots of equal steps bring, between the two syncs next to them; virtual_s: until then."""
    run = run_of(arm, seed, syncs)
    scenario = Scenario(name="unequal", seed=seed, peers=len(SPEEDS), speeds=SPEEDS, step_s=STEP_S, run=run)
    summary, statuses = simulate(scenario, cache, lambda line: None)
    rounds = [report for report in statuses[0]["rounds"] if report["sync"] is not None]
    steady = rounds[WARM_UP_SYNCS:]
    alone = sum(SPEEDS) / STEP_S * run.inner.batch_samples * run.data.context
    share = sum(report["tokens"] for report in steady[1:]) / (steady[-1]["at_s"] - steady[0]["at_s"]) / alone
    losses = {int(sync): loss for sync, loss in summary["heldout_loss"].items()}
    points, tokens = [], 0
    for report in rounds:
        tokens += report["tokens"]
        points.append((tokens, losses.get(report["sync"] + 1, summary["loss_last"]), report["at_s"]))
    wanted = syncs * run.planned_tokens
    after = next(index for index, point in enumerate(points) if point[0] >= wanted)
    (t0, l0, s0), (t1, l1, s1) = points[after - 1], points[after]
    part = (wanted - t0) / (t1 - t0)
    loss, virtual_s = l0 + part * (l1 - l0), s0 + part * (s1 - s0)
    row = (arm, seed, config_hash(run), f"{share:.4f}", wanted, f"{loss:.4f}", f"{virtual_s:.1f}")
    return dict(zip(COLUMNS, row, strict=True))


def read(path: Path) -> list[dict[str, str]]:
    """Rows of swarms that are finished."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """All rows anew, beside the file and then in its place."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def lines_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table for people: means over seeds."""
    seeds = sorted({int(row["seed"]) for row in rows})
    lines = [f"{'':18}{'tokens/s of solo':>17}{'loss':>9}{'to steps':>10}{'seconds':>9}"]
    base = {int(row["seed"]): float(row["loss"]) for row in rows if row["arm"] == "steps"}
    for arm in ARMS:
        mine = [row for row in rows if row["arm"] == arm]
        share, loss, seconds = (statistics.fmean(float(row[key]) for row in mine) for key in ("share_of_solo", "loss", "virtual_s"))
        apart = statistics.fmean(float(row["loss"]) - base[int(row["seed"])] for row in mine)
        lines.append(f"{arm:18}{100 * share:15.1f} %{loss:9.4f}{apart:+10.4f}{seconds:9.0f}")
    speeds = ", ".join(f"{speed:g}" for speed in SPEEDS)
    lines.append(f"machines of speed {speeds}; loss, seconds after {int(rows[0]['tokens']):,} tokens; seeds {', '.join(map(str, seeds))}")
    lines.append(f"{STEPS} steps a slot, or {BUDGET_S:g} s; a quarter of a slot overlaps with the round; 100 Mbit/s, 50 ms")
    return lines


def main() -> int:
    """Parse, play what is missing, report."""
    parser = argparse.ArgumentParser(
        prog="python -m sims.experiments.unequal_machines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("sims/results"))
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("--syncs", type=int, default=16, help="slots of equal steps, at least 5; by time as many tokens")
    options = parser.parse_args()
    if options.seeds < 1 or options.syncs < WARM_UP_SYNCS + 1:
        parser.error(f"--seeds must be at least 1 and --syncs at least {WARM_UP_SYNCS + 1}")
    path = options.out / "unequal_machines.csv"
    options.out.mkdir(parents=True, exist_ok=True)
    rows = {(row["arm"], int(row["seed"]), row["config"]): row for row in read(path)}
    wanted = [(arm, seed, config_hash(run_of(arm, seed, options.syncs))) for seed in range(options.seeds) for arm in ARMS]
    rows = {key: row for key, row in rows.items() if key in wanted}
    with tempfile.TemporaryDirectory() as cache:
        for arm, seed, config in wanted:
            if (arm, seed, config) not in rows:
                rows[arm, seed, config] = play(arm, seed, options.syncs, Path(cache))
                write(path, list(rows.values()))
                print(f"{arm}, seed {seed}: {rows[arm, seed, config]['loss']}", flush=True)
    text = "\n".join(lines_of(list(rows.values())))
    (options.out / "unequal_machines.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
