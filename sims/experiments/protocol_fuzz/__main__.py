"""python -m sims.experiments.protocol_fuzz --seeds N [--first-seed K] [--processes 2] [--trace]
    [--planted NAME] [--first-failure]

Plays N fault schedules on the virtual clock and judges every vote, log write and state of every member. A failing seed is
one line with the command that plays it again; exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import sys
import time

from sims.experiments.protocol_fuzz.campaign import Outcome, outcomes, replay_command
from sims.experiments.protocol_fuzz.planted import PLANTED

PROGRESS_SEEDS = 50


def main() -> int:
    """Parse, play, print."""
    parser = argparse.ArgumentParser(prog="python -m sims.experiments.protocol_fuzz", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many schedules")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="processes that play side by side")
    parser.add_argument("--trace", action="store_true", help="print every event and note of each schedule")
    parser.add_argument("--planted", choices=sorted(PLANTED), default="", help="with this bug in the product")
    parser.add_argument("--first-failure", action="store_true", help="stop at the first seed that fails")
    options = parser.parse_args()
    began_s, totals, cpu_s, failed, number = time.perf_counter(), [0, 0, 0], 0.0, 0, 0
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for number, outcome in enumerate(outcomes(seeds, options.processes, options.trace, options.planted), 1):
        failed, cpu_s = failed + bool(outcome.fault), cpu_s + outcome.cpu_s
        totals = [total + more for total, more in zip(totals, (outcome.rounds, outcome.syncs, outcome.events), strict=True)]
        report(outcome, options.trace, options.seeds <= 5, options.planted)
        if failed and options.first_failure:
            break
        if number % PROGRESS_SEEDS == 0:
            print(f"... {number} seeds, {failed} failed, {time.perf_counter() - began_s:.0f} s", flush=True)
    seconds = time.perf_counter() - began_s
    print(
        f"{number} seeds, {totals[0]} rounds ({totals[1]} syncs), {totals[2]} events judged, "
        f"{failed} violations, {seconds:.1f} s on {options.processes} processes, {cpu_s:.0f} CPU s"
    )
    return 1 if failed else 0


def report(outcome: Outcome, trace: bool, each: bool, planted: str) -> None:
    """What a person wants to know of one seed."""
    if trace:
        print("\n".join(outcome.trace))
        if outcome.detail:
            print(outcome.detail)
    if outcome.fault:
        print(f"seed {outcome.seed}: {outcome.fault} | replay: {replay_command(outcome.seed, planted)}", flush=True)
    if each:
        print(
            f"seed {outcome.seed}: {outcome.trace_digest} {outcome.peers} machines, {outcome.rounds} rounds, "
            f"{outcome.virtual_s:.0f} virtual s, {outcome.cpu_s:.2f} CPU s"
        )


if __name__ == "__main__":
    sys.exit(main())
