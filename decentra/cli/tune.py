"""`decentra tune`: what would keep a swarm computing, by what its nodes measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from decentra.cli.interrupt import run
from decentra.cli.options import read
from decentra.errors import ConfigError, SetupError


@dataclass(frozen=True)
class Options:
    """Which inner steps, overlap and codec let a swarm compute for a wanted share of the time, by the slowest step and link that its
    nodes measured. The fragments stay.

    Example: decentra tune --state state/tiny-0 --codecs int8 --codecs int4      (prints the choice; --set wishes it)
    """

    state: Path | None = None
    """State directory of a node that runs."""
    share: float = 0.95
    """Share of the time in which trainers are to compute."""
    steps: tuple[int, int] = (0, 0)
    """Least and most inner steps between two outer steps of a fragment; default 10 and 300."""
    overlap: int = -1
    """Most overlap steps; default 5."""
    codecs: tuple[str, ...] = ()
    """Codecs that may be chosen; default fp32, bf16, int8 and int4, tried in this order as steps grow."""
    set: bool = False
    """Wish it, as `decentra set` does."""
    json: bool = False


def main(arguments: list[str]) -> int:
    """Ask the swarm what it measured, and print the choice."""
    options = read(Options, arguments, "tune")
    from decentra.scaling.planner import LOSS_ORDER

    if options.state is None:
        raise ConfigError("say at which node: --state with the state directory of a node that runs")
    if not 0.0 < options.share < 1.0:
        raise ConfigError(f"--share {options.share:g} is no share of the time; give one between 0 and 1 such as 0.95")
    least, most = options.steps
    if least < 0 or most < least:
        raise ConfigError(f"--steps {least} {most} is no range; give the least and the most, such as 10 300")
    if unknown := [name for name in options.codecs if name not in LOSS_ORDER]:
        raise ConfigError(f"--codecs {unknown[0]!r} cannot be planned for; use {', '.join(LOSS_ORDER)}")
    from decentra import build
    from decentra.cli.set import wish
    from decentra.node import wishing

    sight = run(wishing.see(options.state, build.wiring()))
    config = sight.run
    measured = wishing.measured_by(config, sight.statuses, len(sight.own["view"]))
    if measured is None:
        raise SetupError("no node has finished a slot yet, so nothing is measured; ask again in a while")
    bounds = wishing.bounds_of(config, least, most, options.overlap, options.codecs)
    tuning = wishing.tune(config, measured, wishing.share_of(build.codecs()), bounds, options.share)
    words = " ".join(f"{key}={value}" for key, value in tuning.wanted.items())
    if options.json and not options.set:
        print(json.dumps({"utilization": tuning.plan.utilization, "reached": tuning.plan.reached, "set": tuning.wanted}))
    elif not options.json:
        print("\n".join(tuning.lines))
        print(f"decentra set {words} --state {options.state}" if words else "that is what holds; nothing to set")
    return wish(options.state, sight, tuning.wanted, options.json) if options.set and words else 0
