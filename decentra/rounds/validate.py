"""validate(S_r, E_r): whether a member may sign an entry. Pure; blobs are checked apart, by holding them."""

from __future__ import annotations

from collections.abc import Sequence

from decentra.codec.base import num_blocks
from decentra.ledger import intervals
from decentra.ledger.apply import Machine
from decentra.ledger.entry import Entry
from decentra.ledger.state import Member, Part, State, next_members
from decentra.outer.average import coefficient_bits
from decentra.rounds import leases
from decentra.rounds.partition import tiles
from decentra.rounds.view import announcement_fault, next_view_stands, overdue
from decentra.types import Digest

DIGEST_BYTES = 32


def entry_fault(run_id: bytes, machine: Machine, state: State, state_hash: Digest, entry: Entry, after: Machine | None = None) -> str:
    """Why this entry may not follow this state; "" where it may.

    after: the machine under the settings that it brings, once a quorum's wishes for them are proved (rounds.wishes).
    """
    if entry.state_hash != state_hash:
        return f"it stands on state {entry.state_hash.hex()[:12]}, this member on {state_hash.hex()[:12]}"
    if (entry.run_id, entry.lineage, entry.r) != (run_id, state.lineage, state.r):
        return f"it is entry {entry.r} of another run or lineage, or not entry {state.r}"
    if entry.settings and after is None:
        return "it changes settings that no quorum is shown to wish"
    return _sync_fault(machine, state, entry) or _view_fault(machine, state, entry, after or machine)


def _sync_fault(machine: Machine, state: State, entry: Entry) -> str:
    if entry.sync is None:
        return "an entry without sync counts contributions" if entry.counted or entry.sums else ""
    fragments = len(machine.fragments)
    base = state.sync - fragments if state.sync >= fragments else -1
    if entry.sync != state.sync or entry.fragment != state.sync % fragments:
        return f"it counts sync {entry.sync} of fragment {entry.fragment}, due is {state.sync}"
    if not state.started(machine.start_members):
        return f"sync 0 is held back until {machine.start_members} members are there"
    senders = [c.sender for c in entry.counted]
    if senders != sorted(set(senders)):
        return "its contributions are doubled or out of order"
    for each in entry.counted:
        member = state.member(each.sender)
        if member is None or member.incarnation != each.incarnation:
            return f"{each.sender[:8]} is not in the view with this incarnation"
        lease = state.leases.get(each.sender, ())
        if len(each.claim) > len(lease) or not intervals.is_prefix(each.claim, lease):
            return f"the claim of {each.sender[:8]} is not a prefix of its lease"
        due = intervals.total(each.claim) * machine.tokens_a_sample
        if each.weight_tokens < 1 or (each.weight_tokens, each.base_sync) != (due, base):
            return f"{each.sender[:8]} weighs {each.weight_tokens} on base {each.base_sync}, not {due} on {base}"
        if len(each.root) != DIGEST_BYTES or not 0 < each.num_steps < 1 << 32:
            return f"the root of {each.sender[:8]} is none, or it took {each.num_steps} steps"
    return _sums_fault(machine, entry)


def _sums_fault(machine: Machine, entry: Entry) -> str:
    if not entry.counted:
        return "it adds blobs that no contribution stands behind" if entry.sums else ""
    codec, shares = machine.down, [coefficient_bits(1, 1)]
    if machine.gather:
        codec, shares = machine.up, list(machine.shares(entry.counted).values())
    blocks = num_blocks(machine.fragments[entry.fragment].num_chunks)
    at = 0
    for total in entry.sums:
        if total.first_block != at or total.num_blocks < 1:
            return "its sums do not tile the fragment"
        if total.codec != codec or [term.coefficient_bits for term in total.terms] != shares:
            return f"a sum of {total.codec[:16]!r} does not weigh its {len(total.terms)} terms as the contributions do"
        if any(len(term.blob) != DIGEST_BYTES for term in total.terms):
            return "a sum names no blob"
        at += total.num_blocks
    return "" if at == blocks else f"its sums cover {at} of {blocks} blocks"


def close_fault(machine: Machine, state: State, roots: Sequence[Digest], parts: Sequence[Part]) -> str:
    """Why no owner reduces a close of the due sync over these roots and this map; "" where it may."""
    blocks = num_blocks(machine.due(state.sync).num_chunks)
    if not roots or len(roots) > len(state.members) or len(set(roots)) != len(roots):
        return f"the close names {len(roots)} roots, or one twice, in a view of {len(state.members)}"
    if not tiles(parts, blocks) or not {p.owner for p in parts} <= set(state.peers()):
        return f"the parts of the close do not tile {blocks} blocks, or name an owner that is no member"
    return ""


def _view_fault(machine: Machine, state: State, entry: Entry, after: Machine) -> str:
    newcomers = {m.peer for m in entry.admitted}
    present = set(state.peers())
    late = overdue(state, entry.heard, entry.sync is not None)
    if len(newcomers) != len(entry.admitted) or newcomers & (present - set(entry.removed)):
        return "it admits a member twice"
    if not set(entry.removed) <= present or len(set(entry.removed)) != len(entry.removed):
        return "it removes who is not there"
    if not set(late) <= set(entry.removed):
        return "it keeps a member unheard for three syncs"
    for peer in entry.removed:
        if peer not in late and peer not in entry.heard and peer not in newcomers:
            return f"it removes {peer[:8]}, which neither left nor was unheard for three syncs"
    if not set(entry.heard) <= present:
        return "it hears who is not in the view"
    if absurd := next(filter(None, map(announcement_fault, entry.admitted)), ""):
        return f"it admits what may not be: {absurd}"
    members = next_members(state, entry.sync is not None, entry.heard, entry.removed, entry.admitted, machine.start_members)
    if not next_view_stands(members, entry.heard, newcomers):
        return "the members it hears are no quorum of the next view, or none can be dialled"
    return map_fault(after, state, entry, members)


def map_fault(machine: Machine, state: State, entry: Entry, members: tuple[Member, ...]) -> str:
    """Why the next map, returns or grants of an entry do not fit the view that follows it; "" where they do.

    machine: under the settings that hold after it.
    """
    next_sync = state.sync + (entry.sync is not None)
    blocks = num_blocks(machine.due(next_sync).num_chunks)
    dialable = {m.peer for m in members if m.dialable}
    if not tiles(entry.next_parts, blocks) or not {p.owner for p in entry.next_parts} <= dialable:
        return "its map does not tile the next fragment, or names an owner that cannot be dialled"
    rule = leases.settle(state, entry.transition().claims, entry.removed, members, machine.lease_samples)
    # The order too: apply takes them one after another.
    if list(rule.returned.items()) != list(entry.returned.items()) or list(rule.granted.items()) != list(entry.granted.items()):
        return "its returns or grants are not what the lease rule gives"
    return ""
