"""The watch: what must hold of a lineage (docs/protocol.md), judged at every vote, every log write and every move of a state.

It sees all machines at once, so it judges what no member could: two entries that were both chosen, blobs that a quorum said
it held and did not, a reduction that is not the average of what the entry says it counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

from decentra.codec.base import encode
from decentra.ledger.apply import fragment_roots
from decentra.ledger.chain import entry_digest
from decentra.ledger.entry import Counted, Entry
from decentra.ledger.state import State
from decentra.ledger.store import Store, Vote, object_digest
from decentra.outer.feedback import compensate
from decentra.rounds import records
from decentra.rounds.member import PERIODS_TO_SILENCE, Member
from decentra.rounds.reduction import reduce
from decentra.rounds.view import is_quorum
from decentra.types import Digest, PeerId
from decentra.wire.v1 import swarm_pb2
from sims.experiments.protocol_fuzz.machines import Node
from sims.experiments.protocol_fuzz.watched import WatchedResiduals

if TYPE_CHECKING:
    from sims.experiments.protocol_fuzz.swarm import Swarm

@dataclass(slots=True)
class _Signed:
    """What one peer, under whatever incarnation, has promised and accepted for one entry."""

    promised: int = 0
    accepted: dict[int, Digest] = field(default_factory=dict)


@dataclass
class Watch:
    """Everything that was ever signed, logged and reached in one swarm."""

    swarm: Swarm
    spoilt: set[PeerId] = field(default_factory=set)
    """Peers whose replica a test has made wrong: where they stand is judged at the end only."""
    liars: set[PeerId] = field(default_factory=set)
    """Peers that a test makes send what their replica did not do."""
    entries: dict[int, bytes] = field(default_factory=dict)
    hashes: dict[int, Digest] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    num_events: int = 0
    _signed: dict[tuple[PeerId, int], _Signed] = field(default_factory=dict)
    _accepters: dict[tuple[int, int], dict[PeerId, int]] = field(default_factory=dict)
    _proposed: dict[tuple[int, int], Digest] = field(default_factory=dict)
    _chosen: dict[int, Digest] = field(default_factory=dict)
    _parsed: dict[Digest, Entry] = field(default_factory=dict)
    _packed: dict[Digest, torch.Tensor] = field(default_factory=dict)
    _counted: dict[Digest, int] = field(default_factory=dict)
    _committed: list[tuple[int, int]] = field(default_factory=list)
    _committed_by: dict[PeerId, list[tuple[int, int]]] = field(default_factory=dict)
    _last_root: dict[tuple[PeerId, int], Digest] = field(default_factory=dict)
    _sent_with: dict[Digest, Digest | None] = field(default_factory=dict)
    _left: dict[Digest, Digest] = field(default_factory=dict)
    _may_lack: set[tuple[PeerId, int]] = field(default_factory=set)
    """Peer and fragment whose residual may have gone, for the peer was in another lineage since."""

    def forked(self, r: int) -> Watch:
        """The watch of a lineage that begins with a forced entry r: it has the entries before r in common with this one."""
        watch = Watch(self.swarm, self.spoilt, self.liars)
        watch._parsed, watch._packed, watch._sent_with, watch._left = self._parsed, self._packed, self._sent_with, self._left
        watch.states = {known: state for known, state in self.states.items() if known <= r}
        watch.hashes = {known: state_hash for known, state_hash in self.hashes.items() if known <= r}
        watch.entries = {known: entry for known, entry in self.entries.items() if known < r}
        for known in sorted(watch.entries):
            watch._count(None, records.parse_entry(watch.entries[known]))
        return watch

    def came_over(self, peer: PeerId) -> None:
        """A member comes from another lineage, where it may have dropped what its last counted contribution here left."""
        self._may_lack |= {key for key in self._last_root if key[0] == peer}

    def newest(self) -> State:
        """The state that most entries led to, on whatever machine."""
        return self.states[max(self.states)]

    def pending(self, r: int) -> list[Entry]:
        """Entries r that anybody has accepted."""
        return [entry for entry in self._parsed.values() if entry.r == r]

    def _fail(self, node: Node | None, text: str) -> None:
        self.swarm.violate(f"{node.name + ': ' if node else ''}{text}")

    # -- votes ------------------------------------------------------------------------------------------------------

    def voted(self, node: Node, incarnation: int, vote: Vote) -> None:
        """A member has written its vote down: never lower than what it promised, never two entries in one ballot."""
        self.num_events += 1
        signed = self._signed.setdefault((node.peer, vote.r), _Signed())
        if vote.promised < signed.promised:
            self._fail(node, f"promises ballot {vote.promised} of entry {vote.r} after ballot {signed.promised}")
        if vote.accepted_ballot >= 0:
            name = entry_digest(vote.accepted_entry)
            known = signed.accepted.get(vote.accepted_ballot)
            if known is None:
                if vote.accepted_ballot < signed.promised:
                    self._fail(node, f"accepts ballot {vote.accepted_ballot} of entry {vote.r} after promising {signed.promised}")
                signed.accepted[vote.accepted_ballot] = name
                self._accepted(node, incarnation, vote, name)
            elif known != name:
                self._fail(node, f"signs two entries in ballot {vote.accepted_ballot} of entry {vote.r}")
        signed.promised = max(signed.promised, vote.promised)
        self.swarm.spring("promised" if vote.accepted_ballot < vote.promised else "accepted", node)

    def _accepted(self, node: Node, incarnation: int, vote: Vote, name: Digest) -> None:
        r, ballot = vote.r, vote.accepted_ballot
        if self._proposed.setdefault((r, ballot), name) != name:
            self._fail(node, f"two entries were proposed in ballot {ballot} of entry {r}")
        if name not in self._parsed:
            self._parsed[name] = records.parse_entry(vote.accepted_entry)
        accepters = self._accepters.setdefault((r, ballot), {})
        accepters[node.peer] = incarnation
        members = self.states[r].members
        counting = [m.peer for m in members if accepters.get(m.peer) == m.incarnation]
        if node.peer in counting and is_quorum(members, counting):
            if self._chosen.setdefault(r, name) != name:
                self._fail(node, f"two entries {r} are chosen, the second in ballot {ballot}")
            if r not in self.entries:  # else it may be chosen once more, in a ballot of those left behind, and its blobs be pruned
                self._check_held(r, self._parsed[name], counting)

    def composed(self, leader: Node, member: Member, entry: Entry) -> None:
        """A leader has composed an entry: it hears nobody whose incarnation in that view has been gone for longer than a silence."""
        for heard in (m for m in self.states[entry.r].members if m.peer in entry.heard):
            ended_s, beat = self.swarm.by_peer(heard.peer).lost.get(heard.incarnation), member.beats.get(heard.peer)
            if ended_s is None:
                continue
            silence_s = max(member.silence_s(), PERIODS_TO_SILENCE * beat.period_s if beat is not None else 0.0)
            if self.swarm.now() - ended_s > 1.5 * silence_s + 1.0:
                self._fail(leader, f"entry {entry.r} hears an incarnation that ended {self.swarm.now() - ended_s:.0f} s ago")

    def _check_held(self, r: int, entry: Entry, accepters: list[PeerId]) -> None:
        """At the moment it is chosen, the blobs of an entry stand on the disks of those who accepted it."""
        members = self.states[r].members
        holders = []
        for member in members:
            node = self.swarm.by_peer(member.peer)
            names = {name.split("/")[1].split(".")[0] for name in node.files.names("blobs")}
            lost = member.incarnation in node.lost and member.peer in accepters
            if lost or all(blob.hex() in names for blob in entry.blobs()):
                holders.append(member.peer)
        if not is_quorum(members, holders):
            self._fail(None, f"entry {r} is chosen, but only {len(holders)} of {len(members)} members hold its blobs")

    # -- commits ----------------------------------------------------------------------------------------------------

    def logged(self, node: Node, r: int, certified: bytes, store: Store) -> None:
        """A member has logged a certified entry: the same as everybody's, behind the one before it."""
        self.num_events += 1
        message = swarm_pb2.CertifiedEntry.FromString(certified)
        first = r not in self.entries
        if self.entries.setdefault(r, message.entry) != message.entry:
            self._fail(node, f"there are two entries {r}")
            return
        if store.oldest_entry() < r and [number for number, _ in store.entries(r - 1, 2)] != [r - 1, r]:
            self._fail(node, f"entry {r} is not logged behind entry {r - 1}")
        if first:
            self.swarm.say(f"{node.name} commits entry {r}")
            self._first_commit(node, r, message)
            self.swarm.spring("committed", node)
        self.swarm.spring("moving", node)

    def _first_commit(self, node: Node, r: int, message: swarm_pb2.CertifiedEntry) -> None:
        entry = self._parsed.get(entry_digest(message.entry)) or records.parse_entry(message.entry)
        if message.HasField("forced"):
            if entry.counted or entry.admitted or not entry.removed:
                self._fail(node, f"the forced entry {r} does not only remove members")
        else:
            self._check_certificate(node, r, message)
        self._count(node, entry)
        if entry.counted:
            self._check_sums(node, entry)

    def _check_certificate(self, node: Node, r: int, message: swarm_pb2.CertifiedEntry) -> None:
        certificate, name = records.parse_certificate(message.certificate), entry_digest(message.entry)
        for signed in certificate.votes:
            voter = swarm_pb2.Vote.FromString(swarm_pb2.Signed.FromString(signed).payload).voter
            if self._signed.get((voter, r), _Signed()).accepted.get(certificate.ballot) != name:
                self._fail(node, f"the certificate of entry {r} counts {voter[:8]}, which did not accept it in ballot {certificate.ballot}")
        if self._chosen.get(r) != name:
            self._fail(node, f"entry {r} is committed, but no quorum has accepted it in one ballot")

    def _count(self, node: Node | None, entry: Entry) -> None:
        for counted in entry.counted:
            if counted.root in self._counted:
                self._fail(node, f"entry {entry.r} counts a root that entry {self._counted[counted.root]} counted")
            self._counted[counted.root] = entry.r
            self._commit_ids(node, entry.r, counted)
            self._check_residual(node, counted, entry.fragment)
        for peer in entry.removed:
            self._last_root = {key: root for key, root in self._last_root.items() if key[0] != peer}

    def _commit_ids(self, node: Node | None, r: int, counted: Counted) -> None:
        for start, stop in counted.claim:
            if any(start < known_stop and known_start < stop for known_start, known_stop in self._committed):
                self._fail(node, f"entry {r} commits ids that were committed before, of [{start}, {stop})")
        self._committed = _merged([*self._committed, *counted.claim])
        self._committed_by[counted.sender] = _merged([*self._committed_by.get(counted.sender, []), *counted.claim])

    def _check_residual(self, node: Node | None, counted: Counted, fragment: int) -> None:
        """A counted contribution sent what its sender's last counted one of that fragment lost: all of it, once."""
        key = (counted.sender, fragment)
        before, self._last_root[key] = self._last_root.get(key), counted.root
        if self.swarm.codec.feedback and counted.root in self._sent_with:
            owed = self._left.get(before) if before is not None else None
            gone = key in self._may_lack and self._sent_with[counted.root] is None
            if self._sent_with[counted.root] != owed and not gone:
                what = "no residual" if self._sent_with[counted.root] is None else "another residual"
                self._fail(node, f"{counted.sender[:8]} sends {what} than what its last counted root of fragment {fragment} left")
        self._may_lack.discard(key)

    def residual_kept(self, fragment_root: Digest, sent: Digest | None, left: Digest) -> None:
        """A contribution was made with the residual `sent` (its digest, None for none) and left another."""
        self._sent_with[fragment_root], self._left[fragment_root] = sent, left

    def _check_sums(self, node: Node, entry: Entry) -> None:
        """Every blob is what must be made of exactly the contributions that the entry counts."""
        assert self.swarm.run is not None
        machine = self.swarm.run.under(self.states[entry.r].settings).machine
        packed = {c.sender: self._packed[c.root] for c in entry.counted if c.root in self._packed}
        if len(packed) != len(entry.counted):
            self._fail(node, f"entry {entry.r} counts a contribution that nobody wrote down")
            return
        shares = _shares(entry, machine.normalised)
        if machine.gather:
            wanted = [(object_digest(packed[p].numpy().tobytes()), shares[p]) for p in sorted(packed)]
            if [(t.blob, t.coefficient_bits) for each in entry.sums for t in each.terms] != wanted:
                self._fail(node, f"the terms of entry {entry.r} are not the contributions it counts")
            return
        blocks = {peer: [each.numpy().data.cast("B")] for peer, each in packed.items()}
        whole = reduce(blocks, shares, machine.codecs[machine.up], machine.codecs[machine.down])
        for each in entry.sums:
            part = whole[each.first_block : each.first_block + each.num_blocks]
            if len(each.terms) != 1 or object_digest(part.numpy().tobytes()) != each.terms[0].blob:
                self._fail(node, f"blocks {each.first_block}+{each.num_blocks} of entry {entry.r} are not the average of what it counts")

    def offered(self, node: Node, signed: bytes) -> None:
        """A member has written down what it will offer: what its replica carries is counted as its own, or claimed now."""
        self.num_events += 1
        raw = node.files.read("offer.bin")
        assert raw is not None and node.trainer is not None
        message = swarm_pb2.Contribution.FromString(swarm_pb2.Signed.FromString(signed).payload)
        root = records.root_of(swarm_pb2.Signed.FromString(signed).payload)
        data = raw[4 + int.from_bytes(raw[:4], "little") :]
        self._packed[root] = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(message.num_chunks, -1)
        claim = [(i.start, i.stop) for i in message.claim]
        mine = _merged([*self._committed_by.get(node.peer, []), *claim])
        if not _within(list(node.trainer.carried), mine):
            self._fail(node, f"its replica carries ids that it neither claims for sync {message.sync} nor had counted")
        if not _within(claim, _merged(list(node.trainer.carried))):
            self._fail(node, f"it claims ids for sync {message.sync} that are not in its replica")
        member = node.member
        stands = member is not None and member.state.sync == message.sync and not member.moves.running()
        if member is not None and stands and node.peer not in self.spoilt:
            due, index = member.run.machine.due(message.sync).elements, message.fragment
            if index not in node.trainer.own_points and not torch.equal(node.trainer.base[due], member.tensors.anchor[due]):
                self._fail(node, f"its contribution to sync {message.sync} is not against the anchor of the fragment's last sync")
            if (drift := node.trainer.drift.get(message.sync)) is not None and node.peer not in self.liars:
                added = member.residuals.added.get(index) if isinstance(member.residuals, WatchedResiduals) else None
                machine, moved = member.run.machine, drift.clone()
                if added is not None:
                    compensate(moved, added, machine.feedback)
                if not torch.equal(encode(machine.codecs[message.codec], moved), self._packed[root]):
                    self._fail(node, f"its contribution to sync {message.sync} is not what its replica did since it took the fragment over")
        self.swarm.spring("offered", node)

    # -- states -----------------------------------------------------------------------------------------------------

    def stands(self, node: Node, state: State, state_hash: Digest) -> None:
        """A member stands at S_r: the same for all, and no id lost or doubled in it."""
        self.num_events += 1
        if node.peer in self.spoilt:
            return
        if state.r not in self.states:
            self.states[state.r], self.hashes[state.r] = state, state_hash
            self._check_ids(node, state)
        elif self.hashes[state.r] != state_hash:
            self._fail(node, f"h_{state.r} differs from that of others")

    def _check_ids(self, node: Node, state: State) -> None:
        """What is committed, leased and returned is every id that was ever granted, once."""
        at = 0
        for start, stop in sorted([*self._committed, *(i for lease in state.leases.values() for i in lease), *state.pool]):
            if start != at:
                self._fail(node, f"ids {min(at, start)} to {max(at, start)} are {'lost' if start > at else 'doubled'} in S_{state.r}")
                return
            at = stop
        if at != state.fresh_sample:
            self._fail(node, f"ids from {at} to {state.fresh_sample} are lost in S_{state.r}")

    def check_tensors(self) -> None:
        """Every live replica's tensors are those that its state names."""
        for member in self.swarm.members():
            found = tuple(fragment_roots(member.tensors, fragment) for fragment in member.run.machine.fragments)
            if not member.moves.running() and found != member.state.roots:
                self._fail(None, f"the tensors of {member.peer[:8]} are not those of its state S_{member.state.r}")

    def check_end(self) -> None:
        """When all have ended: whoever is still a member has applied every entry, and holds what it says."""
        self.check_tensors()
        newest = self.newest()
        for node in self.swarm.live():
            member = node.member
            if member is not None and not node.gone and member.state.r != newest.r:
                self._fail(node, f"ends at entry {member.state.r}, the swarm at {newest.r}")
            elif member is not None and not node.gone and member.hash != self.hashes[newest.r]:
                self._fail(node, f"ends at another h_{newest.r} than the swarm")
        self.swarm.check()


def _shares(entry: Entry, normalised: bool) -> dict[PeerId, int]:
    """The coefficients that the contributions of an entry must have, worked out in another way than members do: by fractions."""
    tokens, steps = sum(c.weight_tokens for c in entry.counted), Fraction(sum(c.num_steps for c in entry.counted), len(entry.counted))
    scaled = {c.sender: Fraction(c.weight_tokens, tokens) * (steps / c.num_steps if normalised else 1) for c in entry.counted}
    return {sender: int(np.float32(float(share)).view(np.uint32)) for sender, share in scaled.items()}


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif start < stop:
            merged.append((start, stop))
    return merged


def _within(spans: list[tuple[int, int]], merged: list[tuple[int, int]]) -> bool:
    """Whether every id of `spans` is in `merged`."""
    return all(any(first <= start and stop <= last for first, last in merged) for start, stop in spans if start < stop)
