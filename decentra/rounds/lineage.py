"""Lineages: what an operator may force, and which of two histories stands where they meet. Pure.

A forced view takes the place of a certificate: it commits one entry, which removes the members that are gone, and a
lineage named by it begins there. Where the quorum was not gone after all, two lineages live; the rule here is total and
the same on every machine, so both sides choose the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from decentra.codec.base import num_blocks
from decentra.ledger.apply import Machine
from decentra.ledger.chain import digest
from decentra.ledger.entry import Entry
from decentra.ledger.state import Fork, State, from_header, next_members
from decentra.rounds import leases
from decentra.rounds.partition import owners_of, split
from decentra.rounds.validate import map_fault
from decentra.types import Digest, PeerId

# -- forced views -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ForcedView:
    """What an operator signed, with the key that signed it (32 bytes)."""

    run_id: bytes
    lineage: str
    r: int
    state_hash: Digest
    entry_digest: Digest
    operator_key: bytes = b""


def name_of(operator_key: bytes, payload: bytes) -> str:
    """The lineage that begins with a forced view: hex digest of who signed what."""
    return digest("decentra/lineage", operator_key, payload).hex()


def forced_entry(run_id: bytes, machine: Machine, state: State, state_hash: Digest, keep: Collection[PeerId]) -> Entry:
    """The entry of a forced view: all but `keep` leave, their leases return, the map is cut anew, nothing is counted.

    Raises ValueError where the view that stays cannot stand.
    """
    strangers = sorted(set(keep) - set(state.peers()))
    if strangers:
        raise ValueError(f"{strangers[0][:8]} is not in the view")
    heard = tuple(peer for peer in state.peers() if peer in keep)
    removed = tuple(sorted(peer for peer in state.peers() if peer not in keep))
    if not removed:
        raise ValueError("every member of the view stays, so there is nothing to force")
    members = next_members(state, False, heard, removed, (), machine.start_members)
    if not owners_of(members, heard):
        raise ValueError("none of the members that stay can be dialled")
    settled = leases.settle(state, {}, removed, members, machine.lease_samples)
    blocks = num_blocks(machine.fragments[state.sync % len(machine.fragments)].num_chunks)
    return Entry(
        run_id=run_id,
        lineage=state.lineage,
        r=state.r,
        state_hash=state_hash,
        sync=None,
        fragment=0,
        counted=(),
        sums=(),
        heard=heard,
        admitted=(),
        removed=removed,
        returned=settled.returned,
        granted=settled.granted,
        next_parts=split(members, owners_of(members, heard), blocks),
    )


def forced_fault(
    forced: ForcedView, operator_keys: Collection[bytes], run_id: bytes, machine: Machine, state: State, entry: Entry, entry_digest: Digest
) -> str:
    """Why a forced view does not commit an entry on this state; "" where it does. Its h_r is judged apart, as of any entry."""
    if forced.operator_key not in operator_keys:
        return "the forced view is signed by a key that is no operator's of this run"
    if (forced.run_id, forced.lineage, forced.r, forced.entry_digest) != (run_id, state.lineage, state.r, entry_digest):
        return f"the forced view is not over entry {state.r} of this run and lineage"
    if (entry.run_id, entry.lineage, entry.r, entry.state_hash) != (run_id, forced.lineage, forced.r, forced.state_hash):
        return "the entry of the forced view stands elsewhere than the view"
    if entry.sync is not None or entry.counted or entry.sums or entry.admitted or entry.settings:
        return "the entry of a forced view may only remove members"
    present = set(state.peers())
    if not entry.removed or not entry.heard or set(entry.heard) ^ set(entry.removed) != present or set(entry.heard) & set(entry.removed):
        return "the entry of the forced view does not say of every member whether it stays"
    members = next_members(state, False, entry.heard, entry.removed, (), machine.start_members)
    return map_fault(machine, state, entry, members)


# -- where lineages meet ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """How a lineage stands, by its newest state that a node can see. tokens: committed in it.

    acts: a quorum of its last view is at work in it now. would_act: one is alive, whichever lineage its members are in.
    """

    name: str
    forks: tuple[Fork, ...]
    r: int
    tokens: int
    acts: bool
    would_act: bool = False


def precedence(standing: Standing) -> tuple[int, int, str]:
    """Least stands: fewer forced views, then most tokens, then the smaller name.

    Two lineages share the forced views before they forked, so comparing all of them compares those since the fork.
    """
    return len(standing.forks), -standing.tokens, standing.name


def is_behind(one: Standing, other: Standing) -> bool:
    """Whether `one` is seen only at entries before `other` forked from it: not a second history, but a part of the same."""
    shared = shared_entries(one.forks, other.forks)
    return len(one.forks) < len(other.forks) and shared is not None and one.r < shared


def which_stands(mine: str, lineages: Sequence[Standing]) -> str:
    """The lineage to be in: the first of those at work; "my own" where none is, which means to wait.

    One exception, or a member that an operator kept, but which stood elsewhere, would wait for ever: where none is at work, it
    follows a lineage with more forced views than its own that would be at work with those alive. Never the other way, so
    members do not pass each other.
    """
    apart = [each for each in lineages if not any(is_behind(each, other) for other in lineages)]
    if at_work := [each for each in apart if each.acts]:
        return min(at_work, key=precedence).name
    own = max((len(each.forks) for each in lineages if each.name == mine), default=0)
    later = [each for each in apart if each.would_act and len(each.forks) > own]
    return min(later, key=precedence).name if later else mine


def shared_entries(left: Sequence[Fork], right: Sequence[Fork]) -> int | None:
    """How many entries two histories have in common; None where one goes on from the other, as far as forced views tell."""
    same = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return min((forks[same].r for forks in (left, right) if len(forks) > same), default=None)


def leads_to(header: bytes, forks: Sequence[Fork]) -> bool:
    """Whether a state's header lies on the history that these forced views led to."""
    try:
        state = from_header(header)
    except (ValueError, KeyError, TypeError):
        return False
    return continues(state, forks)


def continues(state: State, forks: Sequence[Fork]) -> bool:
    """Whether the history that these forced views led to goes on from this state: then its entries can be replayed on it."""
    known = len(state.forks)
    if tuple(forks[:known]) != state.forks:
        return False
    return len(forks) == known or forks[known].r >= state.r
