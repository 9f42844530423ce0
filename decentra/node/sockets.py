"""Where a node keeps its Unix sockets: a folder of its own below TMPDIR, for a state directory's path may be too long for them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from decentra.errors import SetupError
from decentra.ledger.files import Files

FILE = "sockets.txt"
PREFIX = "decentra-"
LONGEST_NAME = "dht0/p2pclient-0123456789a.sock"
SOCKET_PATH_BYTES = 104
"""What the shortest of our platforms allows in a Unix socket's address."""


@contextlib.contextmanager
def socket_folder(files: Files) -> Iterator[Path]:
    """A folder of this user alone, removed at the end. `files`, the node's state, must be held by this process.

    A node that is killed cannot remove its folder: its trainer does, or else its next life, which finds the name in `files`.
    Raises SetupError, OSError.
    """
    _clear_former(files)
    folder = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(4)}"
    if len(os.fsencode(folder / LONGEST_NAME)) >= SOCKET_PATH_BYTES:
        raise SetupError(f"the path of {folder} is too long for a socket; set TMPDIR to a shorter one such as /tmp")
    files.write(FILE, os.fsencode(folder))
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_former(files: Files) -> None:
    kept = files.read(FILE)
    former = Path(os.fsdecode(kept)) if kept else None
    if former is not None and former.is_absolute() and former.name.startswith(PREFIX):
        shutil.rmtree(former, ignore_errors=True)
