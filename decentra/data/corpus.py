"""The text that every Python installation carries: its standard library and its language reference."""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"})
"""Third-party code, tests (some distributions leave them out) and tables of character codes."""

SKIPPED_PREFIXES = ("_sysconfigdata", "config-")
"""Files that describe one build of Python rather than the language."""


def python_documents(max_bytes: int) -> Iterator[str]:
    """Source files of the standard library and topics of the language reference, at most `max_bytes` of UTF-8.

    The order is a fixed shuffle (by digest of the name), so any prefix has the same mix. The document that
    would pass `max_bytes` ends the stream.
    """
    root = Path(sysconfig.get_path("stdlib"))
    topics = language_topics()
    names = [f"lib/{path}" for path in source_files(root)] + [f"topic/{name}" for name in topics]
    left = max_bytes
    for name in sorted(names, key=_shuffle_key):
        text = topics[name[6:]] if name.startswith("topic/") else read_source(root / name[4:])
        left -= len(text.encode())
        if left < 0:
            return
        if text.strip():
            yield text


def source_files(root: Path) -> list[str]:
    """Relative POSIX paths of the *.py files under `root`, sorted; links are not followed."""
    found: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith(SKIPPED_PREFIXES)]
        for name in files:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            # The topics are documents of their own; their source would repeat them all.
            wanted = name.endswith(".py") and not name.startswith(SKIPPED_PREFIXES) and relative != "pydoc_data/topics.py"
            if wanted and not path.is_symlink():
                found.append(relative)
    return sorted(found)


def read_source(path: Path) -> str:
    """The text of one source file, line ends as they are; empty if it cannot be read as UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def language_topics() -> dict[str, str]:
    """The language reference by topic; empty where a distribution leaves it out."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return {}
    return dict(topics)


def split(documents: Iterable[str], heldout_share: float) -> tuple[list[str], list[str]]:
    """(train, held-out): `heldout_share` of the documents, evenly spread and always the first, are held out."""
    train: list[str] = []
    heldout: list[str] = []
    for index, text in enumerate(documents):
        is_heldout = math.ceil((index + 1) * heldout_share) > math.ceil(index * heldout_share)
        (heldout if is_heldout else train).append(text)
    return train, heldout


def _shuffle_key(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()
