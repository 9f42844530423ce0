"""`decentra generate`: what the anchor in a state directory writes, offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from decentra.cli.options import read
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Let the model that a run has agreed on go on with a text.

    Example: decentra generate out/demo/peer-0 --prompt "def main(" --tokens 80
    """

    state: tyro.conf.Positional[Path]
    """State directory of a node that is not running, or the --out of decentra train."""
    prompt: str = ""
    """The text to go on with; empty: a new document."""
    tokens: int = 64
    temperature: float = 0.7
    """0 takes the likeliest token each time."""
    seed: int = 0


def main(arguments: list[str]) -> int:
    """Generate and print, the prompt first."""
    options = read(Options, arguments, "generate")
    if options.tokens < 1:
        raise ConfigError(f"--tokens {options.tokens} must be at least 1")
    if not 0.0 <= options.temperature < float("inf"):
        raise ConfigError(f"--temperature {options.temperature:g} must be 0 or a positive number")
    from decentra.data.tokenizer import Tokenizer
    from decentra.model.generate import generate
    from decentra.sim.offline import trained

    with trained(options.state) as found:
        tokenizer, context = Tokenizer(found.tokenizer), found.run.data.context
        ids = [tokenizer.bos, *tokenizer.encode(options.prompt)]
        made = generate(found.model, ids, options.tokens, options.temperature, options.seed, context)
    if tokenizer.eos in made:
        made = made[: made.index(tokenizer.eos)]
    print(tokenizer.decode([*ids[1:], *made]))
    return 0
