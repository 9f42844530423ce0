"""S_r without its tensors: integers and strings, the same bytes on every machine.

The tensors stand beside it (OuterTensors) and are named here by their tree digests, so the header's digest covers all.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from decentra.ledger import intervals
from decentra.types import Intervals, PeerId

if TYPE_CHECKING:  # the ledger on disk is opened without paying for torch
    import torch

UNHEARD_SYNCS_TO_REMOVE = 3
ROOT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a view, in order of admission.

    first_sync: the first sync it is waited for. last_claim_samples: of its last counted offer, 0 before.
    last_roots: per fragment, the root of its last counted contribution (hex, "" before): the tag of its residual.
    """

    peer: PeerId
    incarnation: int
    dialable: bool
    announced_samples: int
    up_bytes_per_s: int = 0
    down_bytes_per_s: int = 0
    first_sync: int = 0
    unheard_syncs: int = 0
    last_claim_samples: int = 0
    last_roots: tuple[str, ...] = ("",)


@dataclass(frozen=True, slots=True)
class Part:
    """A run of blocks of the due fragment and the member that reduces it."""

    first_block: int
    num_blocks: int
    owner: PeerId

    @property
    def blocks(self) -> range:
        """Numbers of its blocks."""
        return range(self.first_block, self.first_block + self.num_blocks)


@dataclass(frozen=True, slots=True)
class Fork:
    """A view forced by an operator. name: the lineage that began with it; r: the entry it stands on; signed: its bytes, hex."""

    name: str
    r: int
    signed: str


@dataclass(frozen=True, slots=True)
class State:
    """S_r: r entries have been applied, `sync` outer steps taken, so sync number `sync` is due.

    leases: ids each member may train, in order. fresh_sample: first id never granted. pool: returned ids, leased first.
    roots: per fragment, tree digests (hex) of anchor and optimizer state.
    forks: the forced views that led here, oldest first; `lineage` is the name of the last, "" where there is none.
    """

    r: int
    sync: int
    lineage: str
    tokens: int
    tokens_last_sync: int
    members: tuple[Member, ...]
    leases: dict[PeerId, Intervals]
    fresh_sample: int
    pool: Intervals
    parts: tuple[Part, ...]
    roots: tuple[tuple[str, str], ...]
    settings: str = ""
    forks: tuple[Fork, ...] = ()

    def member(self, peer: PeerId) -> Member | None:
        """The member of that id."""
        return next((m for m in self.members if m.peer == peer), None)

    def peers(self) -> tuple[PeerId, ...]:
        """Ids of the view, in order of admission."""
        return tuple(m.peer for m in self.members)

    def expected(self) -> tuple[PeerId, ...]:
        """Members whose contribution the due sync waits for; all where none has reached its first sync."""
        due = tuple(m.peer for m in self.members if m.first_sync <= self.sync)
        return due or self.peers()

    def started(self, start_members: int) -> bool:
        """Whether sync 0 may be trained for."""
        return self.sync > 0 or len(self.members) >= start_members

    def header(self) -> bytes:
        """Canonical bytes: JSON, keys sorted, no spaces."""
        return json.dumps(_plain(self), default=_plain, sort_keys=True, separators=(",", ":")).encode()


def _plain(record: Any) -> dict[str, Any]:
    """A record's fields as they are; json asks again for the records among them."""
    return {name: getattr(record, name) for name in _hints(type(record))}  # type: ignore[arg-type]


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _intervals(raw: list[list[int]]) -> Intervals:
    return tuple((start, stop) for start, stop in raw)


def _typed(value: Any) -> bool:
    """Whether every integer and string of a record is one; its own records are looked at apart."""
    return all(_fits(getattr(value, name), hint) for name, hint in _hints(type(value)).items())  # type: ignore[arg-type]


def _fits(value: object, hint: Any) -> bool:
    kind, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if type(value) is not kind:
        return False
    if kind is tuple:
        items = typing.cast(tuple[object, ...], value)
        kinds = arguments[:1] * len(items) if arguments[-1] is Ellipsis else arguments
        return len(kinds) == len(items) and all(map(_fits, items, kinds))
    if kind is dict:
        pairs = typing.cast(dict[object, object], value).items()
        return all(_fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in pairs)
    return kind is not int or abs(typing.cast(int, value)) < 1 << 64


def from_header(data: bytes) -> State:
    """Read a header back: every value of its type, and the same bytes again. Raises ValueError on anything else."""
    try:
        raw = json.loads(data)
        raw["members"] = tuple(Member(**{**m, "last_roots": tuple(m["last_roots"])}) for m in raw["members"])
        raw["parts"] = tuple(Part(**part) for part in raw["parts"])
        raw["leases"] = {peer: _intervals(lease) for peer, lease in raw["leases"].items()}
        raw["pool"] = _intervals(raw["pool"])
        raw["roots"] = tuple((a, o) for a, o in raw["roots"])
        raw["forks"] = tuple(Fork(**fork) for fork in raw["forks"])
        state = State(**raw)
        if not (_typed(state) and all(map(_typed, (*state.members, *state.parts, *state.forks))) and state.header() == data):
            raise ValueError("a value is of another type, or not in its canonical form")
        if not all(len(bytes.fromhex(root)) == ROOT_BYTES for pair in state.roots for root in pair):
            raise ValueError("a root is no digest")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a header: {type(error).__name__} {str(error)[:80]}") from error
    return state


@dataclass(slots=True)
class OuterTensors:
    """The tensors of S: anchor and momentum, (num_elements,) fp32 each, canonical layout. Owned by the member."""

    anchor: torch.Tensor
    momentum: torch.Tensor


@dataclass(frozen=True, slots=True)
class Transition:
    """How an entry moves view and data: what apply needs of it, and what leases.settle fills in."""

    claims: dict[PeerId, Intervals] = field(default_factory=dict)
    returned: dict[PeerId, Intervals] = field(default_factory=dict)
    granted: dict[PeerId, Intervals] = field(default_factory=dict)


def next_members(
    state: State, is_sync: bool, heard: tuple[PeerId, ...], removed: tuple[PeerId, ...], admitted: tuple[Member, ...], start_members: int
) -> tuple[Member, ...]:
    """The view after an entry, claims not yet noted. A newcomer starts at the swarm's phase, not its own."""
    stay = []
    for member in state.members:
        if member.peer in removed:
            continue
        unheard = 0 if member.peer in heard else member.unheard_syncs + (1 if is_sync else 0)
        stay.append(dataclasses.replace(member, unheard_syncs=unheard))
    first = 0 if not state.started(start_members) else state.sync + 1
    blank = ("",) * len(state.roots)
    new = tuple(dataclasses.replace(m, first_sync=first, unheard_syncs=0, last_claim_samples=0, last_roots=blank) for m in admitted)
    return (*stay, *new)


def move_leases(state: State, change: Transition) -> tuple[dict[PeerId, Intervals], int, Intervals]:
    """(leases, fresh_sample, pool) after claims, returns and grants, in this order. Raises ValueError if they do not fit."""
    leases, fresh, pool = dict(state.leases), state.fresh_sample, state.pool
    for peer, claim in change.claims.items():
        if not intervals.is_prefix(claim, leases.get(peer, ())):
            raise ValueError(f"the claim of {peer} is not a prefix of its lease")
        leases[peer] = intervals.split(leases[peer], intervals.total(claim))[1]
    for peer, back in change.returned.items():
        if leases.pop(peer, ()) != back:
            raise ValueError(f"{peer} returns other ids than its lease")
        pool = intervals.join(pool, back)
    for peer, grant in change.granted.items():
        need = intervals.total(grant)
        from_pool, pool = intervals.split(pool, need)
        missing = need - intervals.total(from_pool)
        if intervals.join(from_pool, ((fresh, fresh + missing),)) != grant:
            raise ValueError(f"the grant of {peer} does not take the pool first")
        fresh += missing
        leases[peer] = intervals.join(leases.get(peer, ()), grant)
    return {peer: lease for peer, lease in leases.items() if lease}, fresh, pool
