"""The log: certified entries in order, appended; what no kept snapshot needs is cut off at the front, rarely and whole.

Each record of log.bin stands behind its length and two checksums, of its head and of all of it: so a torn tail, which a
crash leaves, is told from a damaged length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from decentra.errors import StateError
from decentra.ledger import chain
from decentra.ledger.files import Files

NAME = "log.bin"
MIN_WASTE_BYTES = 1 << 16
"""The log is rewritten when at least this much of it, and at least half of it, is needed no more."""

_HEAD = struct.Struct("<QI")
_CHECK_BYTES = 8

Record = tuple[int, bytes]
"""(r, certified entry)."""


class EntryLog:
    """Entries without a gap. One thread writes; any may read, for the list is replaced, never cut in place."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._records: list[Record] = []

    @classmethod
    def open(cls, files: Files) -> EntryLog:
        """Read what is there; a torn tail is cut off. Raises StateError where a record is damaged."""
        log = cls(files)
        raw = files.read(NAME) or b""
        at = 0
        while at < len(raw) and (record := _read(raw, at)) is not None:
            if log._records and record[0] != log._records[-1][0] + 1:
                raise _damaged(at, record[0])
            log._records.append(record)
            at += _size(record)
        if at < len(raw):
            files.write(NAME, raw[:at])
        return log

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def append(self, r: int, certified: bytes) -> None:
        """Add E_r with its certificate. Where it does not follow the last one, what stands in its way is replaced."""
        if self._records and r != self._records[-1][0] + 1:
            before = [record for record in self._records if record[0] < r]
            self._rewrite([*before, (r, certified)] if before and before[-1][0] == r - 1 else [(r, certified)])
            return
        self._files.append(NAME, _framed(r, certified))
        self._records.append((r, certified))

    def entries(self, first_r: int, limit: int, max_bytes: int | None = None) -> list[Record]:
        """Records from first_r on, in order; [] where first_r is not held. max_bytes cuts the answer, after one at least."""
        records = self._records
        if not records or not records[0][0] <= first_r <= records[-1][0]:
            return []
        start = first_r - records[0][0]
        found = records[start : start + limit]
        if max_bytes is None:
            return found
        total = 0
        for count, (_, certified) in enumerate(found):
            total += len(certified)
            if total > max_bytes and count:
                return found[:count]
        return found

    def oldest(self) -> int:
        """r of the first entry held; 0 where none is."""
        return self._records[0][0] if self._records else 0

    def restart(self) -> None:
        """Forget all: a snapshot from elsewhere has replaced what the log led to."""
        self._rewrite([])

    def drop_before(self, r: int) -> None:
        """Forget the entries before r, once that is worth a rewrite: then a byte is rewritten once on average."""
        kept = [record for record in self._records if record[0] >= r]
        kept_bytes = sum(map(_size, kept))
        waste_bytes = sum(map(_size, self._records)) - kept_bytes
        if waste_bytes >= max(MIN_WASTE_BYTES, kept_bytes):
            self._rewrite(kept)

    def _rewrite(self, records: list[Record]) -> None:
        self._files.write(NAME, b"".join(_framed(*record) for record in records))
        self._records = records


def _read(raw: bytes, at: int) -> Record | None:
    """The record at a place of the file; None where it is torn. Raises StateError where it is damaged."""
    end_of_head = at + _HEAD.size + 2 * _CHECK_BYTES
    if end_of_head > len(raw):
        return None
    r, size = _HEAD.unpack_from(raw, at)
    payload = raw[end_of_head : end_of_head + size]
    head, checks = raw[at : at + _HEAD.size], raw[at + _HEAD.size : end_of_head]
    if checks[:_CHECK_BYTES] == _check(head) and len(payload) < size:
        return None
    if checks != _check(head) + _check(head, payload):
        raise _damaged(at, r)
    return r, payload


def _damaged(at: int, r: int) -> StateError:
    return StateError(f"{NAME} is damaged at byte {at} (entry {r}); move the state directory away and join again")


def _framed(r: int, certified: bytes) -> bytes:
    head = _HEAD.pack(r, len(certified))
    return head + _check(head) + _check(head, certified) + certified


def _size(record: Record) -> int:
    return _HEAD.size + 2 * _CHECK_BYTES + len(record[1])


def _check(*parts: bytes) -> bytes:
    return chain.digest("decentra/log", *parts)[:_CHECK_BYTES]
