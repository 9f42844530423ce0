"""A node's socket folder: its own, gone with it, and cleared by its next life where it was killed."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from decentra.errors import SetupError
from decentra.ledger.files import MemoryFiles
from decentra.node.sockets import FILE, LONGEST_NAME, socket_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TMPDIR of the test's own, short enough for sockets; pytest has made its own before."""
    with tempfile.TemporaryDirectory(prefix="dc-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


LEFT: list[contextlib.ExitStack] = []
"""Nodes that never came to remove their folders: a generator that is collected would."""


def killed(files: MemoryFiles) -> Path:
    """The folder that a killed node leaves, with a socket in it."""
    LEFT.append(contextlib.ExitStack())
    folder = LEFT[-1].enter_context(socket_folder(files))
    (folder / LONGEST_NAME).parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / LONGEST_NAME))
    return folder


def test_the_folder_is_this_users_alone_and_goes_with_the_node(temporary: Path) -> None:
    with socket_folder(MemoryFiles()) as folder:
        assert folder.parent == temporary and folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_the_next_life_of_a_killed_node_removes_its_folder_and_no_others(temporary: Path) -> None:
    files = MemoryFiles()
    former, neighbour = killed(files), killed(MemoryFiles())
    assert former.exists() and former != neighbour
    with socket_folder(files) as folder:
        assert sorted(temporary.iterdir()) == sorted([folder, neighbour])
    assert list(temporary.iterdir()) == [neighbour]


@pytest.mark.parametrize("said", ["", "decentra-relative", "{}/precious", "{}/decentra-gone"])
def test_nothing_else_is_removed_whatever_the_file_says(temporary: Path, said: str) -> None:
    (temporary / "precious").mkdir()
    files = MemoryFiles()
    files.write(FILE, said.format(temporary).encode())
    with socket_folder(files):
        pass
    assert list(temporary.iterdir()) == [temporary / "precious"]


def test_a_temporary_folder_too_deep_for_sockets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(SetupError, match=r"d{100}.* is too long for a socket; set TMPDIR to a shorter one"), socket_folder(MemoryFiles()):
        pass
    assert list(deep.iterdir()) == []
