"""What a member keeps: the log of certified entries, blobs and files by digest, snapshots, its vote and its last offer.

Layout below the Files root: vote.json, offer.json, contacts.json, snapshots/R/{header.json,link.json,anchor-F,momentum-F},
aside/LINEAGE-R/ (the ledger of a lineage that was left, itself a state directory) and what log, objects and spool say of theirs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from decentra.errors import StateError
from decentra.ledger import chain
from decentra.ledger.files import Files
from decentra.ledger.log import EntryLog
from decentra.ledger.objects import FILE_R, Objects, StoredObject, object_digest
from decentra.ledger.sealed import seal, unseal
from decentra.ledger.spool import Spool
from decentra.ledger.state import OuterTensors, State, from_header
from decentra.outer.fragments import Fragment
from decentra.types import Digest

if TYPE_CHECKING:
    import torch



@dataclass(frozen=True, slots=True)
class Vote:
    """What this member has signed for entry r: the ballot promised, and the highest accepted with its entry.

    proposed: the highest ballot it has proposed in; a restarted leader uses only a higher one.
    lineage: the one it is of; what a member signs in one binds it in no other.
    """

    r: int
    promised: int = 0
    accepted_ballot: int = -1
    accepted_entry: bytes = b""
    proposed: int = -1
    lineage: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """S_r as files name it: the header, and what links its hash to the chain."""

    r: int
    header: bytes
    previous_hash: Digest
    previous_entry_digest: Digest

    def state_hash(self) -> Digest:
        """h_r."""
        return chain.next_hash(self.previous_hash, self.previous_entry_digest, chain.header_digest(self.header))


@dataclass(slots=True)
class Store:
    """All verbs are synchronous; callers move them off the event loop. Raises SetupError on a full disk."""

    files: Files
    spool: Spool
    _log: EntryLog
    _objects: Objects
    incarnation: int = 0
    vote: Vote = field(default_factory=lambda: Vote(0))
    """The last vote written down."""
    pinned: Callable[[], int | None] = lambda: None
    """r of an older snapshot that somebody is pulling: pruning leaves it."""
    _votes: dict[str, Vote] = field(default_factory=dict)
    _last_offer_syncs: dict[str, int] = field(default_factory=dict)
    _contacts: list[bytes] | None = None

    @classmethod
    def open(cls, files: Files, make_incarnation: Callable[[], int] | None = None) -> Store:
        """Read what is there; an empty vote store gets a new incarnation, and none where the store is only read.

        Raises StateError if it is damaged.
        """
        store = cls(files, Spool(files), EntryLog.open(files), Objects(files))
        store._open_vote(make_incarnation)
        store._open_offer()
        for r in store.snapshots():
            store._register_snapshot(r)
        return store

    # -- the vote ---------------------------------------------------------------------------------------------------

    def _open_vote(self, make_incarnation: Callable[[], int] | None) -> None:
        raw = self.files.read("vote.json")
        if raw is None:
            if make_incarnation is not None:
                self.incarnation = make_incarnation()
                self.save_vote(self.vote)
            return
        try:
            data = unseal(raw)
            self.incarnation = data.pop("incarnation")
            votes = [_vote_of(each) for each in (*data.pop("other_lineages", ()), data)]
            self._votes, self.vote = {vote.lineage: vote for vote in votes}, votes[-1]
        except (ValueError, KeyError, TypeError) as error:
            raise StateError("vote.json is damaged; delete it to come back as a newcomer") from error

    def save_vote(self, vote: Vote) -> None:
        """Durable before it returns: only then may the answer leave."""
        others = [_vote_json(other) for lineage, other in self._votes.items() if lineage != vote.lineage]
        data = {**_vote_json(vote), "other_lineages": others, "incarnation": self.incarnation}
        self.files.write("vote.json", seal(data))
        self._votes[vote.lineage] = self.vote = vote

    def vote_in(self, lineage: str) -> Vote:
        """The last vote of a lineage."""
        return self._votes.get(lineage, Vote(0, lineage=lineage))

    # -- this member's last offer -----------------------------------------------------------------------------------

    def save_offer(self, sync: int, signed: bytes, lineage: str = "") -> None:
        """Write down a root before its first byte leaves."""
        syncs = {**self._last_offer_syncs, lineage: sync}
        self.files.write("offer.json", seal({"syncs": syncs, "signed": signed.hex()}))
        self._last_offer_syncs = syncs

    def last_offer_sync(self, lineage: str = "") -> int:
        """The sync of the last root written down in a lineage; -1 if none. A restarted member sits that sync out."""
        return self._last_offer_syncs.get(lineage, -1)

    def _open_offer(self) -> None:
        raw = self.files.read("offer.json")
        try:
            syncs = {} if raw is None else unseal(raw)["syncs"]
            self._last_offer_syncs = {str(lineage): int(sync) for lineage, sync in syncs.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError("offer.json is damaged; move the state directory away and join again") from error

    # -- how to dial others -----------------------------------------------------------------------------------------

    def contacts(self) -> list[bytes]:
        """Signed directory records kept by keep_contacts; none where the disk changed them, for peers tell them again."""
        if self._contacts is None:
            raw = self.files.read("contacts.json")
            try:
                self._contacts = [] if raw is None else [bytes.fromhex(signed) for signed in unseal(raw)["records"]]
            except (ValueError, KeyError, TypeError):
                self._contacts = []
        return self._contacts

    def keep_contacts(self, records: list[bytes]) -> None:
        """Keep these signed records, if there are any and they are not the ones kept."""
        if records and records != self.contacts():
            self.files.write("contacts.json", seal({"records": [signed.hex() for signed in records]}))
            self._contacts = records

    # -- the log ----------------------------------------------------------------------------------------------------

    def append(self, r: int, certified: bytes) -> None:
        """Add E_r with its certificate."""
        self._log.append(r, certified)

    def entries(self, first_r: int, limit: int, max_bytes: int | None = None) -> list[tuple[int, bytes]]:
        """(r, certified entry) from first_r on, in order, without a gap; see EntryLog.entries."""
        return self._log.entries(first_r, limit, max_bytes)

    def restart_log(self) -> None:
        """Forget the log: a snapshot from elsewhere has replaced what it led to."""
        self._log.restart()

    def set_aside(self, name: str) -> str:
        """Move log, snapshots and blobs to a folder of their own, which is a state directory too; returns its name.

        A crash within leaves a prefix of the moves: a state directory without its log's end, or one that must fetch a snapshot.
        """
        folder, number = f"aside/{name}", 1
        while self.files.names(folder):
            number += 1
            folder = f"aside/{name}-{number}"
        self.files.write(f"{folder}/manifest.bin", self.files.read("manifest.bin") or b"")
        self.files.move("log.bin", f"{folder}/log.bin")
        marks_first = sorted(self.files.names("snapshots"), key=lambda name: not name.endswith("link.json"))
        for each in (*marks_first, *self.files.names("blobs")):
            self.files.move(each, f"{folder}/{each}")
        self._log.restart()
        self._objects.forget()
        return folder

    def oldest_entry(self) -> int:
        """r of the first entry held; 0 where none is."""
        return self._log.oldest()

    # -- objects by digest ------------------------------------------------------------------------------------------

    def put_blob(self, data: bytes | memoryview, r: int) -> Digest:
        """Keep a blob that entry r may name; returns its digest."""
        return self._objects.put_blob(data, r)

    def serve_blob(self, data: memoryview, r: int) -> tuple[Digest, ...]:
        """Give a blob away that is not kept yet; returns the digests of its blocks. See Objects.serve_blob."""
        return self._objects.serve_blob(data, r)

    def put_blocks(self, blocks: Sequence[bytes | memoryview], digests: Sequence[Digest], r: int) -> Digest:
        """The same of a blob's blocks, whose digests are known to be these."""
        return self._objects.put_blocks(blocks, digests, r)

    def has(self, name: Digest) -> bool:
        """Whether an object is held."""
        return self._objects.has(name)

    def blob(self, name: Digest) -> bytes:
        """The bytes of a blob. Raises KeyError where it is not held, StateError where the disk changed it."""
        return self._objects.blob(name)

    def put_file(self, name: str, data: bytes) -> Digest:
        """Keep a file of the run (tokenizer, shards) under its name; returns its digest."""
        self.files.write(f"files/{name}", data)
        return self.register_file(name)

    def register_file(self, name: str) -> Digest:
        """Make a file that is already in place servable; returns its digest. Raises KeyError if it is not there."""
        data = self.files.read(f"files/{name}")
        if data is None:
            raise KeyError(name)
        name_digest = object_digest(data)
        self._objects.register(name_digest, f"files/{name}", FILE_R, False)
        return name_digest

    def served(self, name: Digest) -> StoredObject:
        """An object with its block digests, for a puller. Raises KeyError, StateError where it is damaged."""
        return self._objects.served(name)

    def block(self, served: StoredObject, number: int) -> bytes:
        """One block of an object that is being served. Raises KeyError where it is gone meanwhile."""
        return self._objects.block(served, number)

    # -- snapshots --------------------------------------------------------------------------------------------------

    def snapshots(self) -> list[int]:
        """r of every snapshot kept, oldest first. The link is written last, so it marks a whole one."""
        return sorted(int(name.split("/")[1]) for name in self.files.names("snapshots") if name.endswith("link.json"))

    def save_snapshot(self, snapshot: Snapshot, tensors: OuterTensors, fragments: Iterable[Fragment]) -> None:
        """Keep S_r."""
        folder = f"snapshots/{snapshot.r}"
        for fragment in fragments:
            where = fragment.elements
            self.files.write(f"{folder}/anchor-{fragment.index}", _bytes_of(tensors.anchor[where]))
            self.files.write(f"{folder}/momentum-{fragment.index}", _bytes_of(tensors.momentum[where]))
        self.files.write(f"{folder}/header.json", snapshot.header)
        link = {"hash": snapshot.previous_hash.hex(), "entry": snapshot.previous_entry_digest.hex(), "state": snapshot.state_hash().hex()}
        self.files.write(f"{folder}/link.json", json.dumps(link).encode())
        self._register_snapshot(snapshot.r)

    def snapshot(self, r: int) -> Snapshot:
        """The header and link of a kept snapshot. Raises StateError where they are damaged."""
        header, link = self.files.read(f"snapshots/{r}/header.json"), self.files.read(f"snapshots/{r}/link.json")
        if header is None or link is None:
            raise StateError(f"snapshot {r} is not there")
        try:
            raw = json.loads(link)
            found = Snapshot(r, header, bytes.fromhex(raw["hash"]), bytes.fromhex(raw["entry"]))
            holds = found.state_hash().hex() == raw["state"]
        except (ValueError, KeyError, TypeError):
            holds = False
        if not holds:
            raise StateError(f"snapshot {r} is damaged (header or link); move the state directory away and join again")
        return found

    def load_tensors(self, r: int, tensors: OuterTensors, fragments: Iterable[Fragment]) -> State:
        """Fill `tensors` from a snapshot. Raises StateError where the bytes are not those that its header names."""
        state = from_header(self.snapshot(r).header)
        for fragment in fragments:
            targets = (tensors.anchor[fragment.elements], tensors.momentum[fragment.elements])
            for kind, target, root in zip(("anchor", "momentum"), targets, state.roots[fragment.index], strict=True):
                data = self.files.read(f"snapshots/{r}/{kind}-{fragment.index}") or b""
                array = np.frombuffer(data, dtype="<f4") if len(data) == target.nbytes else None
                if array is None or chain.tensor_root(array).hex() != root:
                    raise StateError(f"snapshot {r} is damaged ({kind}); move the state directory away and join again")
                target.numpy()[:] = array
        return state

    def _register_snapshot(self, r: int) -> None:
        for index, roots in enumerate(from_header(self.snapshot(r).header).roots):
            for kind, root in zip(("anchor", "momentum"), roots, strict=True):
                self._objects.register(bytes.fromhex(root), f"snapshots/{r}/{kind}-{index}", r, True)

    def prune(self, keep_snapshots: int) -> None:
        """Keep the last `keep_snapshots` snapshots (0: all), at most one older that is pinned, and log and blobs since."""
        held = self.snapshots()
        kept = held[-keep_snapshots:]
        if keep_snapshots == 0 or not kept:
            return
        pinned = self.pinned()
        kept = [pinned, *kept] if pinned in held and pinned not in kept else kept
        old = [name for name in self.files.names("snapshots") if int(name.split("/")[1]) not in kept]
        for name in sorted(old, key=lambda name: not name.endswith("link.json")):  # first the mark of a whole snapshot
            self.files.remove(name)
        self._objects.drop(kept[0], kept)
        for r in kept if old else ():  # tensors that a dropped snapshot had in common with one that stays
            self._register_snapshot(r)
        self._log.drop_before(kept[0])


def _vote_json(vote: Vote) -> dict[str, Any]:
    return {**dataclasses.asdict(vote), "accepted_entry": vote.accepted_entry.hex()}


def _vote_of(data: dict[str, Any]) -> Vote:
    return Vote(**{**data, "accepted_entry": bytes.fromhex(data["accepted_entry"])})


def _bytes_of(flat: torch.Tensor) -> memoryview:
    array: np.ndarray = flat.numpy().astype("<f4", copy=False)
    return array.data.cast("B")
