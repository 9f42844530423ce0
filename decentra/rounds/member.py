"""A member: its copy of the state machine, and what it knows of the round.

Read with life (from the first round to the last), exchange (a round as followers see it), lead (as its leader sees it),
accept (its votes), owner (its parts), serve (what it answers) and catchup (how it gets a state). This file holds what
they share, and the one place where S moves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any

from google.protobuf.message import DecodeError

from decentra.errors import PeerError, PeerFault, StateError
from decentra.ledger.apply import apply, state_after
from decentra.ledger.chain import entry_digest, header_digest
from decentra.ledger.entry import Entry
from decentra.ledger.state import Fork, OuterTensors, Part, State, from_header
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.store import Snapshot, Vote
from decentra.rounds import bounds, drift, meeting, records
from decentra.rounds.absence import Absence
from decentra.rounds.ballot import fresh
from decentra.rounds.carried import Carried
from decentra.rounds.chase import Chases
from decentra.rounds.fetch import Fetcher
from decentra.rounds.forks import fork_of
from decentra.rounds.moves import Moves
from decentra.rounds.offers import Offer, OfferBook, half_offered, offer_fault
from decentra.rounds.outlook import Outlook
from decentra.rounds.pacing import RoundTrip
from decentra.rounds.parts import PartStore
from decentra.rounds.phase import Phase
from decentra.rounds.ports import Changed, Ports, Run, learn_record
from decentra.rounds.residuals import Residuals
from decentra.rounds.status import Beat, report_of
from decentra.settings import differences
from decentra.types import Digest, PeerId, RoundReport
from decentra.wire.v1 import rounds_pb2, swarm_pb2

SILENCE_FLOOR_S = 4.0
PERIOD_FLOOR_S = 0.25
PERIODS_TO_SILENCE = 10
HISTORY_ENTRIES = 4096
GOODBYE_S = 5.0
"""A leaver goes, as if crashed, when this long after it asked no entry has let it go."""


class Member:
    """One node's part in the swarm. All methods run on one event loop; heavy work goes through ports.run_blocking."""

    def __init__(self, run: Run, ports: Ports, state: State, state_hash: Digest, tensors: OuterTensors, me: ViewMember) -> None:
        self.run, self.ports, self.me = run, ports, me
        self.wish = ""
        """The settings that the operator of this node wishes; "" for none."""
        self.state, self.hash, self.tensors = state, state_hash, tensors
        self.book, self.parts = OfferBook(state.sync), PartStore()
        self.own: Offer | None = None
        self.sits_out_sync = ports.store.last_offer_sync(state.lineage)
        self.came_back = state.r > 0
        """Whether this node came to the due sync after the others, and has not yet heard how far they are with it."""
        self.phase, self.arrived_s = Phase(self.now()), self.now()
        """arrived_s: when the last certificate came, before its blobs were pulled."""
        self.slot_sync = -1
        """The sync that the trainer is at work for; -1 between two slots."""
        self.takes_over: tuple[Part, ...] = ()
        self.failing: set[PeerId] = set()
        self.residuals, self.carried = Residuals(ports.store.files), Carried(len(run.machine.fragments), self.overlaps())
        self.attempt = 0
        self.beats: dict[PeerId, Beat] = {}
        self.leader_heard: tuple[PeerId, ...] = ()
        self.leading, self.collecting = False, False
        self.leaving, self.leave_by_s = False, math.inf
        self.behind: PeerId | None = None
        self.catching_up = False
        self.chases = Chases()
        self.absence = Absence()
        self.outlook = Outlook()
        self.origin = 0
        """Counts how often the replica was replaced otherwise than by an entry: what was begun before is void."""
        self.quorum_s = -math.inf
        self.said: set[str] = set()
        self.changed, self.arrived = Changed(), Changed()
        self.fetcher = Fetcher(self)
        self.history: deque[RoundReport] = deque(maxlen=HISTORY_ENTRIES)
        self.last_certified: bytes = b""
        self.marks: dict[str, float] = {}
        self.waiting_for, self.waiting_detail = "the first entry", ""
        self.waiting_since_s = self.now()
        self.trip = RoundTrip()
        self.heldout_loss: dict[int, float] = {}
        self.train_loss: dict[int, float] = {}
        self.overrun_s: dict[int, float] = {}
        """By sync: how long its slot stood still because the round before outlasted the overlap steps."""
        self.compute_s, self.steps_taken = 0.0, 0
        self.trained_s = 0.0
        self.born_s = self.trained_until_s = self.now()
        self.began_s = math.inf
        """When its first slot began; `trained_until_s` is when its last one ended."""
        self.vote_lock, self.commit_lock, self.averaging = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self.tasks: asyncio.TaskGroup | None = None
        self.aside: dict[asyncio.Task[None], None] = {}
        self.moves = Moves()
        self.bytes_seen = (0, 0)
        self.status_said = (-math.inf, "")
        self.round_start_s = self.now()
        self.ahead_s = 0.0
        """How long before this round began half of the members had offered for the last sync, and might go on."""

    # -- the state and the settings it carries ----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """S_r. What it says of settings, the run that this member takes part in follows at once: nobody else need look."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        if state.settings != self.run.settings:
            self.run = self.run.under(state.settings)
            self.me = dataclasses.replace(self.me, announced_samples=self.run.config.first_lease_samples)

    def overlaps(self) -> bool:
        """Whether slots begin before the last sync is decided."""
        return self.run.config.outer.ahead_steps > 0

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
        """Whether the run has ended, or this node is leaving and out of the view, alone in it, or has asked for too long."""
        left = self.leaving and (not self.in_view() or len(self.state.members) == 1 or self.now() >= self.leave_by_s)
        return self.run.is_done(self.state.sync, self.state.tokens) or left

    def period_s(self) -> float:
        """Heartbeat period: four control round trips at least."""
        return max(PERIOD_FLOOR_S, 4 * self.trip.now_s)

    def silence_s(self) -> float:
        """How long without a word counts as silence."""
        return max(SILENCE_FLOOR_S, PERIODS_TO_SILENCE * self.period_s())

    def patience_s(self, num_bytes: int) -> float:
        """How long to wait for what still needs `num_bytes` at the rate now seen; doubled by attempts."""
        return (2 * self.silence_s() + 4 * num_bytes / self.fetcher.rate_bytes_per_s) * (1 << min(self.attempt, 4))

    def is_fresh(self, beat: Beat) -> bool:
        """Whether a peer has spoken lately, for how seldom it was asked to."""
        return self.now() - beat.time_s <= max(self.silence_s(), PERIODS_TO_SILENCE * beat.period_s)

    def heard(self) -> tuple[PeerId, ...]:
        """Members of the view whose present incarnation answered this attempt lately, this one included."""
        found = []
        for member in self.state.members:
            beat = self.beats.get(member.peer)
            answers = beat is not None and not beat.newcomer and beat.member.incarnation == member.incarnation
            present = answers and beat is not None and self.is_fresh(beat) and not self.absence.is_gone(member.peer)
            if present or (member.peer == self.peer and self.in_view()):
                found.append(member.peer)
        return tuple(found)

    def within_reach(self, peers: Iterable[PeerId]) -> list[PeerId]:
        """Those of these peers that this node may reach, in order, each once: two that cannot be dialled never meet."""
        hidden = set() if self.me.dialable else {m.peer for m in self.state.members if not m.dialable}
        return [peer for peer in dict.fromkeys(peers) if peer and peer != self.peer and peer not in hidden]

    def wait(self, what: str, detail: str = "") -> None:
        """Say for what and whom this member waits now. A detail may change while the wait stays the same."""
        self.waiting_detail = detail
        if what != self.waiting_for:
            self.waiting_for, self.waiting_since_s = what, self.now()

    def say_once(self, text: str) -> None:
        """Note a line for people, unless it has been said in this round."""
        if text not in self.said:
            self.said.add(text)
            self.ports.note(text)

    def is_called_away(self) -> bool:
        """Whether something must be done before rounds go on: catch up, go over to another lineage, put this replica right."""
        return self.behind is not None or self.outlook.is_urgent()

    def mark(self, name: str) -> None:
        """Note when a phase of this sync's round was reached, once."""
        self.marks.setdefault(name, self.now())

    def mark_half(self) -> None:
        """Note when half of the members waited for had offered, as far as this one knows."""
        if half_offered(self.state.expected(), self.book.offers):
            self.mark("half")

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
        task.add_done_callback(lambda done: self._ended_aside(done, work))

    def _ended_aside(self, task: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
        self.aside.pop(task, None)
        work.close()

    # -- messages ---------------------------------------------------------------------------------------------------

    async def call(self, peer: PeerId, request: rounds_pb2.Request, timeout_s: float) -> rounds_pb2.Reply:
        """One control message. Raises PeerError."""
        request.run_id, request.lineage = self.run.run_id, bytes.fromhex(self.state.lineage)
        data = await self.ports.transport.call(peer, request.SerializeToString(), timeout_s)
        kind = request.WhichOneof("kind") or ""
        if fault := bounds.reply_fault(kind, data, len(self.state.members)):
            raise PeerFault(peer, fault)
        try:
            reply = rounds_pb2.Reply.FromString(data)
        except DecodeError as error:
            raise PeerFault(peer, f"its reply cannot be read: {error}") from error
        if reply.WhichOneof("kind") != bounds.REPLY_TO[kind]:
            raise PeerFault(peer, f"its reply to a {kind} is a {reply.WhichOneof('kind')}")
        return reply

    async def tell(self, peer: PeerId, request: rounds_pb2.Request) -> None:
        """One control message whose answer does not matter; to be spawned. Raises PeerError."""
        await self.call(peer, request, self.silence_s())

    def learn_record(self, signed: bytes) -> swarm_pb2.Record:
        """Verify a directory record and learn how to dial its peer. Raises ValueError."""
        return learn_record(self.ports, self.run.run_id, signed)

    # -- S moves ----------------------------------------------------------------------------------------------------

    async def commit(self, certified: bytes, source: PeerId) -> bool:
        """Take a certified entry: verify, pull its blobs, log, apply. False where it is not the next one, or not of this
        replica's lineage or state, which is then looked into.

        Raises ValueError where the certificate does not hold; PeerError where no holder gave the blobs. A caller that is
        cancelled does not stop it half-way, where the tensors have moved and the state has not.
        """
        return await self.moves.run(self._commit(certified, source))

    async def _commit(self, certified: bytes, source: PeerId) -> bool:
        message, arrived_s = swarm_pb2.CertifiedEntry.FromString(certified), self.now()
        async with self.commit_lock:
            entry = records.parse_entry(message.entry)
            if meeting.is_foreign(self, entry, message, source):
                return False
            if entry.r != self.state.r:
                if entry.r > self.state.r:
                    self.fall_behind(source)
                return False
            fault = meeting.commit_fault(self, message, entry)
            if fault:
                raise ValueError(fault)
            if entry.state_hash != self.hash:
                drift.found(self, entry, source)
                return False
            await self.fetcher.blobs_of(entry, (source,))
            self.mark("certified")
            fork = fork_of(message)
            state = await self.ports.run_blocking(self._apply, entry, certified, fork)
            ballot, self.arrived_s = records.parse_certificate(message.certificate).ballot, arrived_s
            self._moved(entry, state, state_after(self.hash, message.entry, state), certified, ballot)
            if fork is not None:
                self.start_anew()
            await self._maybe_snapshot(message.entry, entry.state_hash)
        return True

    def _apply(self, entry: Entry, certified: bytes, fork: Fork | None) -> State:
        if entry.settings:
            self.run.under(entry.settings)  # raises before anything is written
        self.ports.store.append(entry.r, certified)
        return apply(self.run.machine, self.state, self.tensors, entry, self.ports.store.blob, fork)

    async def _maybe_snapshot(self, entry_bytes: bytes, previous_hash: Digest) -> None:
        if self.state.r % self.run.config.snapshot_every == 0:
            snapshot = Snapshot(self.state.r, self.state.header(), previous_hash, entry_digest(entry_bytes))
            await self.ports.run_blocking(self.keep_snapshot, snapshot)

    def keep_snapshot(self, snapshot: Snapshot) -> None:
        """Write S_r and drop what is older than the snapshots kept."""
        if header_digest(snapshot.header) != header_digest(self.state.header()):
            raise StateError(f"snapshot {snapshot.r} is not of the present state")
        self.ports.store.save_snapshot(snapshot, self.tensors, self.run.machine.fragments)
        self.ports.store.prune(self.ports.keep_snapshots)

    async def adopt(self, snapshot: Snapshot, tensors: OuterTensors) -> bool:
        """Go on from a snapshot that was fetched whole, if it is ahead: this replica's own pending work is dropped."""
        return await self.moves.run(self._adopt(snapshot, tensors))

    async def _adopt(self, snapshot: Snapshot, tensors: OuterTensors) -> bool:
        async with self.commit_lock:
            if snapshot.r <= self.state.r:
                return False
            await self.ports.run_blocking(self.take_over, snapshot, tensors)
            self.state, self.hash, self.last_certified = from_header(snapshot.header), snapshot.state_hash(), b""
            self.start_anew()
        return True

    def take_over(self, snapshot: Snapshot, tensors: OuterTensors) -> None:
        """Put a snapshot in place of log and tensors; blocks."""
        # A crash in between leaves the snapshot and a log that ends before it.
        self.ports.store.save_snapshot(snapshot, tensors, self.run.machine.fragments)
        self.ports.store.restart_log()
        self.tensors.anchor.copy_(tensors.anchor)
        self.tensors.momentum.copy_(tensors.momentum)

    def _moved(self, entry: Entry, state: State, state_hash: Digest, certified: bytes, ballot: int) -> None:
        was_in_view = self.in_view()
        before, self.state, self.hash, self.last_certified = self.state, state, state_hash, certified
        if state.settings != before.settings:
            said = differences(self.run.founded, before.settings, state.settings)
            self.ports.note(f"from sync {state.sync} on {said or 'the settings are as founded'}")
            self.carried.overlaps = self.overlaps()
        if entry.sync is not None:
            counted = self.own is not None and self.own.root in {c.root for c in entry.counted}
            self.carried.decided(counted, self.run.machine.due(entry.sync).index)
        if not self.in_view():
            self.carried.restart()
        self.mark("applied")
        self.history.append(report_of(self, before, entry, ballot))
        self._turn(entry.sync is not None)
        if entry.sync is None and not before.started(self.run.config.start_members):
            self.phase.begins(self.arrived_s)
        elif entry.sync is None and self.in_view() and not was_in_view:
            self.came_back = True

    def start_anew(self) -> None:
        """The replica was replaced, or its lineage is another: slot and offer, begun on what was, are dropped."""
        self.origin += 1
        self.carried.overlaps = self.overlaps()
        self.carried.restart()
        self.sits_out_sync = self.ports.store.last_offer_sync(self.state.lineage)
        self.quorum_s, self.arrived_s = -math.inf, self.now()
        self._turn(True)

    def _turn(self, new_sync: bool) -> None:
        """A new round, and maybe a new sync, begins."""
        self.attempt, self.beats, self.leader_heard, self.behind = 0, {}, (), None
        self.outlook.looked_into.clear()
        self.said.clear()
        self.collecting = self.leading = False
        self.takes_over, self.failing = (), set()
        self.chases.keep_only(self.state.peers())
        if new_sync:
            # Who begins anew with a round that others began their slots ahead of comes late to it; who is merely slow does not.
            self.came_back = self.overlaps() and self.carried.fresh and self.state.sync > 0
            if "offered" in self.marks and "trained" in self.marks:
                self.phase.leads_s.append(self.marks.get("sent", self.marks["offered"]) - self.marks["trained"])
            self.phase.begins(self.arrived_s)
            self.book.offers.clear()
            self.parts.clear()
            self.round_start_s = self.now()
            self.ahead_s = self.round_start_s - self.marks.get("half", self.round_start_s)
            self.marks = {"slot": self.round_start_s} if self.slot_sync == self.state.sync else {}
        for name in ("closed", "proposed", "certified", "applied"):
            self.marks.pop(name, None)
        self.book.sync = self.state.sync
        # An entry without sync may remove a sender, or replace its incarnation: its offer can no longer be counted.
        self.book.offers = {peer: offer for peer, offer in self.book.offers.items() if not self.fault_of(offer)}
        own = self.book.offers.get(self.peer)
        self.own = own if own is not None and own.root in self.parts.held else None
        self.wait(f"sync {self.state.sync}")
        self.changed.notify()

    def fall_behind(self, donor: PeerId, strangers: bool = False) -> None:
        """Somebody is ahead: catch up from there. Strangers are mostly not believed, for a snapshot is taken on the donor's word."""
        if (strangers or self.state.member(donor) is not None) and self.chases.believes(donor, self.now()):
            self.behind = donor
            self.changed.notify()

    def fault_of(self, offer: Offer) -> str:
        """Why an offer cannot be counted in the due sync; "" where it can."""
        machine = self.run.machine
        chunks = machine.due(offer.sync).num_chunks
        return offer_fault(offer, self.state, len(machine.fragments), chunks, machine.up, machine.tokens_a_sample)

    def vote(self) -> Vote:
        """This member's vote for the due entry."""
        return fresh(self.ports.store.vote_in(self.state.lineage), self.state.r)

    def may_vote(self) -> bool:
        """Whether this member votes in the due round: not where it has signed for a later one, or its h_r is disputed."""
        return self.in_view() and not self.outlook.disputed and self.ports.store.vote_in(self.state.lineage).r <= self.state.r

    # -- life -------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ask to be left out of the next view."""
        self.leaving, self.leave_by_s = True, self.now() + GOODBYE_S
        self.changed.notify()

    def loose_tasks(self) -> list[asyncio.Future[Any]]:
        """Tasks that run aside of the one that lives this member's life."""
        return [*self.aside, *self.moves.running(), *self.fetcher.running()]


def announced(peer: PeerId, incarnation: int, dialable: bool, run: Run, rates: tuple[int, int] = (0, 0)) -> ViewMember:
    """A node as it announces itself to the view."""
    return ViewMember(peer, incarnation, dialable, run.config.first_lease_samples, *rates)
