"""`decentra export`: the anchor in a state directory as a Hugging Face model, offline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tyro

from decentra.cli.options import read
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Write what a run has agreed on as a Hugging Face model: config.json, model.safetensors (fp32) and its tokenizer.

    Example: decentra export out/demo/peer-0 --hf out/demo-hf
    """

    state: tyro.conf.Positional[Path]
    """State directory of a node that is not running, or the --out of decentra train."""
    hf: Path
    """Folder to write to; an empty or a new one."""


def main(arguments: list[str]) -> int:
    """Export and say what was written."""
    options = read(Options, arguments, "export")
    if options.hf.exists() and (not options.hf.is_dir() or any(options.hf.iterdir())):
        raise ConfigError(f"--hf {options.hf} is not an empty folder; give an empty or a new one")
    from decentra.data.tokenizer import Tokenizer
    from decentra.model import hf
    from decentra.sim.offline import trained

    with trained(options.state) as found:
        model, tokenizer = found.model, Tokenizer(found.tokenizer)
        model.config = dataclasses.replace(model.config, max_context=model.config.max_context or found.run.data.context)
        hf.save(model, options.hf, tokenizer.bos, tokenizer.eos)
        hf.save_tokenizer(found.tokenizer, options.hf)
    print(f"{options.hf}: run {found.run.name!r} after outer step {found.sync}, {found.tokens:,} tokens")
    return 0
