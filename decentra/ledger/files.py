"""The files seam: where a node's ledger stands. A disk, and a memory one that simulations can crash.

Contract (tests/contracts/test_files.py): names are relative paths with '/'. `write` is atomic and durable when it
returns; `append` is durable when it returns; a crash inside it leaves a prefix of the data, an error nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from decentra.errors import SetupError, StateError


class Files(Protocol):
    """Six verbs. Raises SetupError when the disk is full or not writable."""

    def read(self, name: str, first_byte: int = 0, num_bytes: int | None = None) -> bytes | None:
        """The file, or as much of a piece of it as is there; None if there is no such file."""
        ...

    def write(self, name: str, *data: bytes | memoryview) -> None:
        """Replace the file as a whole by these pieces, one after another."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the end."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names of the files below a folder, sorted."""
        ...

    def remove(self, name: str) -> None:
        """Delete the file if it is there."""
        ...

    def move(self, name: str, target: str) -> None:
        """Give the file another name, replacing what is there; nothing where there is no such file."""
        ...


class DiskFiles:
    """A directory of this machine, locked by one process."""

    def __init__(self, root: Path) -> None:
        """Raises StateError if another process holds the directory, SetupError if it cannot be made."""
        self.root = root
        with _disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StateError(f"{root} is in use by another process; stop it or give another --state") from error
        self._counter = itertools.count()
        for left in root.rglob("*.tmp"):
            left.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where a file stands on disk."""
        return self.root / name

    def read(self, name: str, first_byte: int = 0, num_bytes: int | None = None) -> bytes | None:
        """See Files."""
        try:
            with (self.root / name).open("rb") as file:
                file.seek(first_byte)
                return file.read(num_bytes)
        except FileNotFoundError:
            return None

    def write(self, name: str, *data: bytes | memoryview) -> None:
        """See Files: temporary file, fsync, rename, fsync of the folder. Threads that write one name do not mix."""
        path = self.root / name
        temporary = path.with_name(f"{path.name}.{next(self._counter)}.tmp")
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _write_durably(temporary, os.O_TRUNC, *data)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            os.replace(temporary, path)
            _sync_folder(path.parent)

    def append(self, name: str, data: bytes) -> None:
        """See Files."""
        path = self.root / name
        with _disk_errors(path):
            before = path.stat().st_size if path.exists() else -1
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _write_durably(path, os.O_APPEND, data)
            except OSError:
                if path.exists():
                    os.truncate(path, max(0, before))
                raise
            if before < 0:
                _sync_folder(path.parent)

    def names(self, folder: str) -> list[str]:
        """See Files."""
        root = self.root / folder
        return sorted(str(p.relative_to(self.root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".tmp")

    def remove(self, name: str) -> None:
        """See Files; folders that are empty then go too."""
        path = self.root / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            while (path := path.parent) != self.root:
                path.rmdir()

    def move(self, name: str, target: str) -> None:
        """See Files; a folder that is empty then goes too."""
        path, goal = self.root / name, self.root / target
        if not path.exists():
            return
        with _disk_errors(goal):
            goal.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, goal)
            _sync_folder(goal.parent)
            _sync_folder(path.parent)
        if path.parent != self.root:
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def close(self) -> None:
        """Give the directory back."""
        os.close(self._lock)


class MemoryFiles:
    """Files of a simulated machine."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def read(self, name: str, first_byte: int = 0, num_bytes: int | None = None) -> bytes | None:
        """See Files."""
        data = self._files.get(name)
        return data if data is None else data[first_byte:][:num_bytes]

    def write(self, name: str, *data: bytes | memoryview) -> None:
        """See Files."""
        self._files[name] = b"".join(data)

    def append(self, name: str, data: bytes) -> None:
        """See Files."""
        self._files[name] = self._files.get(name, b"") + data

    def names(self, folder: str) -> list[str]:
        """See Files."""
        return sorted(name for name in self._files if name.startswith(folder + "/"))

    def remove(self, name: str) -> None:
        """See Files."""
        self._files.pop(name, None)

    def move(self, name: str, target: str) -> None:
        """See Files."""
        if name in self._files:
            self._files[target] = self._files.pop(name)


def _write_durably(path: Path, flag: int, *data: bytes | memoryview) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    try:
        for piece in data:
            view = memoryview(piece)
            while view:
                view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "the disk is full; free some space" if error.errno == errno.ENOSPC else f"{error.strerror}; check the directory"
        raise SetupError(f"cannot write {path}: {reason}") from error
