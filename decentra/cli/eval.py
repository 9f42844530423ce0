"""`decentra eval`: held-out loss of the anchor in a state directory, offline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from decentra.cli.options import read
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Held-out loss and bits per byte of what a run has agreed on: of the anchor, never of one node's own weights.

    Example: decentra eval out/demo/peer-0
    """

    state: tyro.conf.Positional[Path]
    """State directory of a node that is not running, or the --out of decentra train."""
    samples: int = 0
    """Samples spread over the held-out text; 0: as many as the run evaluates."""
    json: bool = False


def main(arguments: list[str]) -> int:
    """Evaluate and print."""
    options = read(Options, arguments, "eval")
    if options.samples < 0:
        raise ConfigError(f"--samples {options.samples} must not be negative; use 0 for as many as the run evaluates")
    from decentra import build
    from decentra.data.tokenizer import Tokenizer
    from decentra.sim.offline import trained
    from decentra.train.evaluate import bits_per_byte, evaluate

    with trained(options.state) as found:
        run, tokenizer = found.run, Tokenizer(found.tokenizer)
        heldout = build.heldout(run, found.files, options.samples)
        loss = evaluate(found.model, heldout)
        bits = bits_per_byte(loss, heldout, tokenizer.num_bytes)
    if options.json:
        numbers = {"entry": found.entry, "sync": found.sync, "tokens_committed": found.tokens}
        print(json.dumps({**numbers, "heldout_loss": loss, "bits_per_byte": bits}))
    else:
        print(f"outer step {found.sync}, {found.tokens:,} tokens: {loss:.4f} nats a token, {bits:.4f} bits a byte")
    return 0
