"""Options of a command: tyro over a frozen dataclass, its complaints made into one sentence."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TypeVar

import tyro

from decentra.errors import ConfigError

T = TypeVar("T")

_FRAME = re.compile("[─-╿]+")


def read(kind: type[T], arguments: list[str], command: str) -> T:
    """The options in `arguments`; `--help` prints and exits. Raises ConfigError naming the option and its value."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=arguments, prog=f"decentra {command}")
    except SystemExit as ending:
        if not ending.code:
            raise
        raise ConfigError(f"{_sentence(complaint.getvalue())}; see decentra {command} --help") from None


def _sentence(box: str) -> str:
    """tyro frames what is wrong and, below a rule, how the option is described: only the first part is kept."""
    lines = box.splitlines()[1:]
    rule = next((i for i, line in enumerate(lines) if "───" in line), len(lines))
    return " ".join(_FRAME.sub(" ", " ".join(lines[:rule])).split()).rstrip(".:")
