"""`decentra sim`: a simulated swarm."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from decentra.cli.options import read


@dataclass(frozen=True)
class Options:
    """Simulate a swarm on the virtual clock: the same protocol, memory transport, real training.

    Example: decentra sim sims/scenarios/tiny.toml
    """

    scenario: tyro.conf.Positional[Path]
    """Scenario file."""
    seed: int = -1
    """Another seed than the scenario's."""
    out: Path | None = None
    """Where summary.json goes; default out/sim-NAME."""
    cache: Path = Path(".data")
    """Where text and tokenizer are built, once."""
    verbose: bool = False
    """Print every line that a node notes."""
    json: bool = False
    """Print summary.json on stdout and nothing else."""


def main(arguments: list[str]) -> int:
    """Simulate and sum up."""
    options = read(Options, arguments, "sim")
    from decentra.sim.scenario import load
    from decentra.sim.simulate import simulate

    scenario = load(options.scenario)
    if options.seed >= 0:
        scenario = dataclasses.replace(scenario, seed=options.seed)
    out = options.out or Path("out") / f"sim-{scenario.name}"

    def note(line: str) -> None:
        if options.verbose:
            print(line, file=sys.stderr)

    summary, _ = simulate(scenario, options.cache, note)
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    if options.json:
        print(json.dumps(summary))
    else:
        took = f"{summary['virtual_s']:.0f} virtual s ({summary['wall_s']:.1f} s here)"
        first = "?" if summary["loss_first"] is None else f"{summary['loss_first']:.2f}"
        print(
            f"{summary['rounds_committed']} outer steps in {took}; held-out loss "
            f"{first} -> {summary['loss_last']:.2f}; hashes {'equal' if summary['hashes_equal'] else 'DIFFERENT'}; "
            f"{summary['bytes_per_round_per_peer'] / 1e6:.2f} MB a round and peer; {out}/summary.json"
        )
    return 0 if summary["hashes_equal"] else 1
