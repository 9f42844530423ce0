"""`decentra text` (hidden): builds tokenizer and shards for a daemon, in a process that a Ctrl-C can end at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from decentra.cli.options import read
from decentra.config import DataConfig, from_dict


@dataclass(frozen=True)
class Options:
    """data: the [run.data] section as JSON. folder: where the files go."""

    data: str
    folder: Path


def main(arguments: list[str]) -> int:
    """Build what is not there."""
    from decentra.data import shards

    options = read(Options, arguments, "text")
    shards.build(from_dict(DataConfig, json.loads(options.data), "--data", ""), options.folder)
    return 0
