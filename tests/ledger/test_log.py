"""The log by itself: gaps, cuts at the front, torn tails, and what a rewrite costs."""

from __future__ import annotations

import pytest

from decentra.errors import SetupError, StateError
from decentra.ledger.files import MemoryFiles
from decentra.ledger.log import MIN_WASTE_BYTES, EntryLog


def body(r: int, size: int = 100) -> bytes:
    return bytes([r % 251]) * size


def filled(first: int, end: int, files: MemoryFiles | None = None, size: int = 100) -> EntryLog:
    log = EntryLog.open(files or MemoryFiles())
    for r in range(first, end):
        log.append(r, body(r, size))
    return log


class CountingFiles(MemoryFiles):
    """Counts what is written; `full` refuses whole files, as a full disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.appended_bytes = self.rewritten_bytes = 0
        self.full = False

    def write(self, name: str, *data: bytes | memoryview) -> None:
        if self.full:
            raise SetupError(f"cannot write {name}: the disk is full; free some space")
        self.rewritten_bytes += sum(map(len, data))
        super().write(name, *data)

    def append(self, name: str, data: bytes) -> None:
        self.appended_bytes += len(data)
        super().append(name, data)


def test_what_is_dropped_in_front_is_gone_for_good_and_what_follows_stays() -> None:
    files = MemoryFiles()
    log = filled(0, 40, files, MIN_WASTE_BYTES // 10)
    log.drop_before(30)
    for each in (log, EntryLog.open(files)):
        assert [r for r, _ in each] == list(range(30, 40)) and each.oldest() == 30
        assert each.entries(29, 5) == [] and each.entries(31, 2) == [(r, body(r, MIN_WASTE_BYTES // 10)) for r in (31, 32)]
    log.append(40, b"next")
    assert EntryLog.open(files).entries(40, 9) == [(40, b"next")]


def test_the_log_stays_bounded_and_a_byte_is_rewritten_once_on_average() -> None:
    files = CountingFiles()
    log = EntryLog.open(files)
    longest = 0
    for r in range(2000):
        log.append(r, body(r, 1000))
        if r % 8 == 0:
            log.drop_before(r - 16)
        longest = max(longest, len(files.read("log.bin") or b""))
    assert longest < 2 * MIN_WASTE_BYTES + 30 * 1028
    assert files.rewritten_bytes <= files.appended_bytes


def test_nothing_is_lost_when_there_is_no_room_for_the_rewrite() -> None:
    files = CountingFiles()
    log = filled(0, 40, files, MIN_WASTE_BYTES // 10)
    files.full = True
    with pytest.raises(SetupError, match="the disk is full"):
        log.drop_before(30)
    assert [r for r, _ in log] == list(range(40)) == [r for r, _ in EntryLog.open(files)]


def test_an_answer_is_cut_by_bytes_but_never_to_nothing() -> None:
    log = filled(0, 10, size=1000)
    assert [r for r, _ in log.entries(2, 100, 3500)] == [2, 3, 4]
    assert [r for r, _ in log.entries(2, 100, 10)] == [2]
    assert [r for r, _ in log.entries(2, 2, 10**9)] == [2, 3]


def test_an_entry_that_does_not_follow_replaces_what_is_in_its_way() -> None:
    files = MemoryFiles()
    log = filled(0, 5, files)
    log.append(3, b"again")
    assert list(EntryLog.open(files)) == [*((r, body(r)) for r in range(3)), (3, b"again")]
    log.append(9, b"after a snapshot")
    assert list(log) == [(9, b"after a snapshot")] == list(EntryLog.open(files))


@pytest.mark.parametrize("cut", [1, 20, 27, 28, 29, 127])
def test_a_torn_tail_is_cut_off_wherever_it_tears(cut: int) -> None:
    files = MemoryFiles()
    filled(0, 5, files)
    raw = files.read("log.bin") or b""
    files.write("log.bin", raw[: 4 * 128 + cut])
    log = EntryLog.open(files)
    assert [r for r, _ in log] == [0, 1, 2, 3] and files.read("log.bin") == raw[: 4 * 128]
    log.append(4, b"goes on")
    assert EntryLog.open(files).entries(4, 1) == [(4, b"goes on")]


def test_any_flipped_byte_is_noticed_or_is_a_torn_tail() -> None:
    files = MemoryFiles()
    filled(7, 10, files, 40)
    raw = files.read("log.bin") or b""
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 0x40
        files.write("log.bin", bytes(flipped))
        with pytest.raises(StateError, match=r"log\.bin is damaged at byte \d+ .*move the state directory away and join again"):
            EntryLog.open(files)
