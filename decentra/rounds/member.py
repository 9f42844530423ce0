"""A member: its copy of the state machine, and what it knows of the round.

Read with life (from the first round to the last), exchange (a round as followers and owners see it), lead (as its leader
sees it), serve (what it answers) and catchup (how it gets a state). This file holds what they share, and the one place
where S moves.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from decentra.errors import PeerError, StateError
from decentra.ledger.apply import apply, state_after
from decentra.ledger.chain import entry_digest, header_digest
from decentra.ledger.entry import Entry
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.state import OuterTensors, State
from decentra.ledger.store import Snapshot, Vote
from decentra.rounds import records
from decentra.rounds.ballot import certificate_fault
from decentra.rounds.catchup import Reached
from decentra.rounds.fetch import Fetcher
from decentra.rounds.offers import Offer, OfferBook
from decentra.rounds.parts import PartStore
from decentra.rounds.ports import Changed, Ports, Run, learn_record
from decentra.types import Digest, PeerId, RoundReport
from decentra.wire.v1 import rounds_pb2, swarm_pb2

SILENCE_FLOOR_S = 4.0
PERIOD_FLOOR_S = 0.25
PERIODS_TO_SILENCE = 10
HISTORY_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Beat:
    """The last heartbeat of a peer in this entry's round."""

    time_s: float
    attempt: int
    member: ViewMember
    newcomer: bool
    leaving: bool
    held: frozenset[Digest]
    sits_out: bool
    steps_done: int
    num_steps: int


class Member:
    """One node's part in the swarm. All methods run on one event loop; heavy work goes through ports.run_blocking."""

    def __init__(self, run: Run, ports: Ports, state: State, state_hash: Digest, tensors: OuterTensors, me: ViewMember) -> None:
        self.run, self.ports, self.me = run, ports, me
        self.state, self.hash, self.tensors = state, state_hash, tensors
        self.book, self.parts = OfferBook(state.sync), PartStore()
        self.own: Offer | None = None
        self.attempt = 0
        self.beats: dict[PeerId, Beat] = {}
        self.leader_heard: tuple[PeerId, ...] = ()
        self.leading = False
        self.collecting = False
        self.leaving = False
        self.stopping = False
        self.behind: PeerId | None = None
        self.changed = Changed()
        self.fetcher = Fetcher(self)
        self.history: deque[RoundReport] = deque(maxlen=HISTORY_ENTRIES)
        self.last_certified: bytes = b""
        self.marks: dict[str, float] = {}
        self.waiting_for = "the first entry"
        self.waiting_since_s = self.now()
        self.rtt_s = 0.1
        self.heldout_loss: dict[int, float] = {}
        self.train_loss: dict[int, float] = {}
        self.compute_s = 0.0
        self.trained_s = 0.0
        self.born_s = self.now()
        self.vote_lock, self._commit_lock = asyncio.Lock(), asyncio.Lock()
        self.tasks: asyncio.TaskGroup | None = None
        self.aside: dict[asyncio.Task[None], None] = {}
        self._bytes_seen = (0, 0)
        self.round_start_s = self.now()

    # -- small questions --------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The loop's clock, seconds."""
        return asyncio.get_running_loop().time()

    @property
    def peer(self) -> PeerId:
        """This node's id."""
        return self.me.peer

    def in_view(self) -> bool:
        """Whether this incarnation is a member."""
        member = self.state.member(self.peer)
        return member is not None and member.incarnation == self.me.incarnation

    def is_done(self) -> bool:
        """Whether the run has ended, or this node is leaving and out of the view."""
        return self.run.is_done(self.state.sync, self.state.tokens) or (self.leaving and not self.in_view()) or self.stopping

    def period_s(self) -> float:
        """Heartbeat period: four control round trips at least."""
        return max(PERIOD_FLOOR_S, 4 * self.rtt_s)

    def silence_s(self) -> float:
        """How long without a word counts as silence."""
        return max(SILENCE_FLOOR_S, PERIODS_TO_SILENCE * self.period_s())

    def patience_s(self, num_bytes: int) -> float:
        """How long to wait for what still needs `num_bytes` at the rate now seen; doubled by attempts."""
        return (2 * self.silence_s() + 4 * num_bytes / self.fetcher.rate_bytes_per_s) * 2 ** min(self.attempt, 4)

    def heard(self) -> tuple[PeerId, ...]:
        """Members of the view whose present incarnation answered this attempt lately, this one included."""
        limit = self.now() - self.silence_s()
        found = []
        for member in self.state.members:
            beat = self.beats.get(member.peer)
            fresh = beat is not None and beat.time_s >= limit and not beat.newcomer and beat.member.incarnation == member.incarnation
            if fresh or (member.peer == self.peer and self.in_view()):
                found.append(member.peer)
        return tuple(found)

    def wait(self, what: str) -> None:
        """Say what is being waited for now."""
        if what != self.waiting_for:
            self.waiting_for, self.waiting_since_s = what, self.now()

    def mark(self, name: str) -> None:
        """Note when a phase of this sync's round was reached, once."""
        self.marks.setdefault(name, self.now())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run aside until the member ends; a peer's fault there is noted, not raised."""

        async def guarded() -> None:
            try:
                await work
            except PeerError as error:
                self.ports.note(str(error))

        if self.tasks is None:
            work.close()
            return
        task = self.tasks.create_task(guarded())
        self.aside[task] = None
        task.add_done_callback(lambda done: self.aside.pop(done, None))

    # -- messages ---------------------------------------------------------------------------------------------------

    async def call(self, peer: PeerId, request: rounds_pb2.Request, timeout_s: float) -> rounds_pb2.Reply:
        """One control message. Raises PeerError."""
        request.run_id = self.run.run_id
        reply = rounds_pb2.Reply()
        reply.ParseFromString(await self.ports.transport.call(peer, request.SerializeToString(), timeout_s))
        return reply

    def learn_record(self, signed: bytes) -> swarm_pb2.Record:
        """Verify a directory record and learn how to dial its peer. Raises ValueError."""
        return learn_record(self.ports, self.run.run_id, signed)

    # -- S moves ----------------------------------------------------------------------------------------------------

    async def commit(self, certified: bytes, source: PeerId) -> bool:
        """Take a certified entry: verify, pull its blobs, log, apply. False where it is not the next one.

        Raises PeerFault-like ValueError where the certificate does not hold; PeerError where no holder gave the blobs.
        """
        message = swarm_pb2.CertifiedEntry.FromString(certified)
        async with self._commit_lock:
            entry = records.parse_entry(message.entry)
            if entry.r != self.state.r:
                if entry.r > self.state.r:
                    self.behind = source
                return False
            certificate = records.parse_certificate(message.certificate)
            fault = certificate_fault(
                certificate, self.run.run_id, self.state.lineage, entry.r, entry_digest(message.entry), self.state.members, self._open_vote
            )
            if fault or entry.state_hash != self.hash:
                raise ValueError(fault or f"entry {entry.r} stands on another state: this replica has drifted at h_{entry.r}")
            self.mark("certified")
            await self.fetcher.blobs_of(entry, (source,))
            state = await self.ports.run_blocking(self._apply, entry, message.entry, certified)
            self._moved(entry, state, state_after(self.hash, message.entry, state), certified, certificate.ballot)
            await self._maybe_snapshot(message.entry, entry.state_hash)
        return True

    def _open_vote(self, signed: bytes) -> Any:
        return records.open_vote(self.ports.verifier, signed)

    def _apply(self, entry: Entry, entry_bytes: bytes, certified: bytes) -> State:
        self.ports.store.append(entry.r, certified)
        return apply(self.run.machine, self.state, self.tensors, entry, self.ports.store.blob)

    async def _maybe_snapshot(self, entry_bytes: bytes, previous_hash: Digest) -> None:
        if self.state.r % self.run.config.snapshot_every == 0:
            snapshot = Snapshot(self.state.r, self.state.header(), previous_hash, entry_digest(entry_bytes))
            await self.ports.run_blocking(self.keep_snapshot, snapshot)

    def keep_snapshot(self, snapshot: Snapshot) -> None:
        """Write S_r and drop what is older than the snapshots kept."""
        if header_digest(snapshot.header) != header_digest(self.state.header()):
            raise StateError(f"snapshot {snapshot.r} is not of the present state")
        self.ports.store.save_snapshot(snapshot, self.tensors, self.run.machine.fragments)
        self.ports.store.prune(2)

    async def adopt(self, reached: Reached) -> None:
        """Go on from a state that was fetched whole: this replica's own pending work is dropped."""
        async with self._commit_lock:
            self.state, self.hash = reached.state, reached.state_hash
            self.book.turn(-1)
            self.book.turn(self.state.sync)
            self.parts.clear()
            self.own, self.attempt, self.beats, self.behind = None, 0, {}, None
            self.changed.notify()

    def _moved(self, entry: Entry, state: State, state_hash: Digest, certified: bytes, ballot: int) -> None:
        self.state, self.hash, self.last_certified = state, state_hash, certified
        self.mark("applied")
        self._report(entry, ballot)
        self.attempt, self.beats, self.leader_heard, self.behind = 0, {}, (), None
        self.collecting = self.leading = False
        if entry.sync is not None:
            self.book.turn(state.sync)
            self.parts.clear()
            self.own = None
            self.marks = {}
            self.round_start_s = self.now()
        self.wait(f"sync {state.sync}")
        self.changed.notify()

    def _report(self, entry: Entry, ballot: int) -> None:
        marks, now = self.marks, self.now()
        made, last = marks.get("offered", now), marks.get("last_offer", now)
        closed = marks.get("closed", marks.get("proposed", now))
        proposed, certified = marks.get("proposed", now), marks.get("certified", now)
        up, down = self.ports.transport.counters()
        counted = {c.sender for c in entry.counted}
        left_out = {p: "not heard" if p not in entry.heard else "not offered in time" for p in self.state.expected() if p not in counted}
        report = RoundReport(
            entry=entry.r,
            sync=entry.sync,
            state_hash=self.hash.hex(),
            alive=len(entry.heard),
            in_view=len(self.state.members),
            averaged=len(counted),
            tokens=sum(c.weight_tokens for c in entry.counted),
            bytes_up=up - self._bytes_seen[0],
            bytes_down=down - self._bytes_seen[1],
            attempts=ballot + 1,
        )
        if entry.sync is not None:
            report.times_s = {
                "compute": marks.get("trained", now) - marks.get("slot", marks.get("trained", now)),
                "encode": made - marks.get("trained", made),
                "wait": max(0.0, last - made),
                "transfer": max(0.0, closed - max(made, last)),
                "reduce": max(0.0, proposed - closed),
                "ballot": max(0.0, certified - proposed),
                "apply": max(0.0, now - certified),
                "round": now - self.round_start_s,
            }
            report.left_out = left_out
            report.heldout_loss = self.heldout_loss.get(entry.sync)
            self._bytes_seen = (up, down)
        self.history.append(report)

    def vote(self) -> Vote:
        """This member's vote for the due entry."""
        stored = self.ports.store.vote
        return stored if stored.r == self.state.r else Vote(self.state.r)

    # -- life -------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ask to be left out of the next view."""
        self.leaving = True
        self.changed.notify()


def announced(peer: PeerId, incarnation: int, dialable: bool, run: Run, rates: tuple[int, int] = (0, 0)) -> ViewMember:
    """A node as it announces itself to the view."""
    return ViewMember(peer, incarnation, dialable, run.announced_samples, *rates)


def as_now(member: ViewMember) -> ViewMember:
    """A member as it announces itself, without what the ledger knows of it."""
    return dataclasses.replace(member, first_sync=0, unheard_syncs=0, last_claim_samples=0, last_roots=("",))
