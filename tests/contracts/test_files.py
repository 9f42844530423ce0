"""The contract of `Files`, asked of the disk and of memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from decentra.errors import SetupError, StateError
from decentra.ledger.files import DiskFiles, Files, MemoryFiles


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return DiskFiles(tmp_path / "state") if request.param == "disk" else MemoryFiles()


def test_what_was_written_is_read_and_a_missing_file_is_none(files: Files) -> None:
    assert files.read("log.bin") is None and files.read("a/b/c") is None
    files.write("a/b/c", b"one")
    files.write("log.bin", b"")
    assert (files.read("a/b/c"), files.read("log.bin")) == (b"one", b"")
    files.write("a/b/c", b"a longer two")
    assert files.read("a/b/c") == b"a longer two"
    files.write("a/b/c", b"3")
    assert files.read("a/b/c") == b"3"
    files.write("a/b/c", b"in", b"", memoryview(bytearray(b" pieces")))
    assert files.read("a/b/c") == b"in pieces"


def test_append_adds_to_the_end_and_makes_the_file(files: Files) -> None:
    for piece in (b"one", b"", b"two" * 1000):
        files.append("folder/log", piece)
    assert files.read("folder/log") == b"one" + b"two" * 1000
    files.write("folder/log", b"new")
    files.append("folder/log", b"er")
    assert files.read("folder/log") == b"newer"


def test_names_are_of_one_folder_at_any_depth_and_sorted(files: Files) -> None:
    for name in ("blobs/b.3", "blobs/a.1", "blobsome/x", "blobs/deep/er/c", "top"):
        files.write(name, b"x")
    assert files.names("blobs") == ["blobs/a.1", "blobs/b.3", "blobs/deep/er/c"]
    assert files.names("nowhere") == []


def test_a_removed_file_is_gone_and_may_be_removed_again(files: Files) -> None:
    files.write("blobs/a", b"x")
    files.remove("blobs/a")
    files.remove("blobs/a")
    assert files.read("blobs/a") is None and files.names("blobs") == []


def test_a_moved_file_stands_elsewhere_and_replaces_what_was_there(files: Files) -> None:
    files.write("snapshots/3/anchor", b"new")
    files.write("aside/x/snapshots/3/anchor", b"old")
    files.move("snapshots/3/anchor", "aside/x/snapshots/3/anchor")
    files.move("snapshots/3/anchor", "aside/x/elsewhere")
    assert files.read("aside/x/snapshots/3/anchor") == b"new"
    assert files.names("snapshots") == [] and files.names("aside") == ["aside/x/snapshots/3/anchor"]


def test_the_caller_may_change_its_buffer_after_a_write(files: Files) -> None:
    buffer = bytearray(b"first")
    files.write("a/x", buffer)
    files.append("a/y", buffer)
    buffer[:] = b"later"
    assert files.read("a/x") == b"first" == files.read("a/y")


def test_the_disk_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    first = DiskFiles(tmp_path)
    first.write("a/b", b"kept")
    first.append("log", b"kept too")
    first.close()
    second = DiskFiles(tmp_path)
    assert (second.read("a/b"), second.read("log")) == (b"kept", b"kept too")
    second.close()


def test_a_directory_in_use_is_refused_by_name_until_it_is_given_back(tmp_path: Path) -> None:
    first = DiskFiles(tmp_path)
    with pytest.raises(StateError, match=f"{tmp_path} is in use by another process"):
        DiskFiles(tmp_path)
    first.close()
    DiskFiles(tmp_path).close()


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, room_bytes: int) -> None:
    """From now on `room_bytes` fit on the disk, and no more."""
    real, left = os.write, [room_bytes]

    def write(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = real(handle, memoryview(data)[: left[0]])
        left[0] -= size
        return size

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("room_bytes", [0, 1, 1000])
def test_on_a_full_disk_nothing_is_half_written_and_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_bytes: int
) -> None:
    files = DiskFiles(tmp_path)
    files.write("a/vote", b"old")
    files.append("a/log", b"old")
    for verb, name in ((files.write, "a/vote"), (files.append, "a/log"), (files.write, "a/new"), (files.append, "a/newer")):
        with monkeypatch.context() as patch:
            fill_the_disk(patch, room_bytes)
            with pytest.raises(SetupError, match=f"{name}: the disk is full; free some space"):
                verb(name, b"x" * 2000)
    assert files.read("a/vote") == b"old" == files.read("a/log")
    assert not files.read("a/new") and not files.read("a/newer")
    assert not list(tmp_path.rglob("*.tmp"))
    files.append("a/log", b"er")
    assert files.read("a/log") == b"older"
    files.close()


def test_a_write_that_comes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, memoryview(data)[:7]))
    files = DiskFiles(tmp_path)
    files.write("a", bytes(range(100)))
    files.append("b", bytes(range(100)))
    assert files.read("a") == bytes(range(100)) == files.read("b")
    files.close()


def test_a_place_that_cannot_be_a_directory_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SetupError, match=r"cannot write .*check the directory"):
        DiskFiles(tmp_path / "file")
