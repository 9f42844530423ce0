"""S_{r+1} = apply(S_r, E_r): pure, bit-identical on every machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from decentra.codec.base import Codec, add_decoded, block_slice, num_blocks, packed_rows
from decentra.ledger import chain, intervals
from decentra.ledger.entry import Entry
from decentra.ledger.state import Fork, Member, OuterTensors, Part, State, move_leases, next_members
from decentra.outer.average import coefficient, shares
from decentra.outer.base import OuterOptimizer
from decentra.outer.fragments import Fragment, fragment_of_sync
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS, Digest, PeerId

BlobSource = Callable[[Digest], bytes]
"""The bytes of a blob by digest; raises KeyError where it is not held."""


class Weighed(Protocol):
    """What of a contribution decides how much it counts."""

    @property
    def sender(self) -> PeerId:
        """Whose it is."""

    @property
    def weight_tokens(self) -> int:
        """Tokens trained."""

    @property
    def num_steps(self) -> int:
        """Inner steps taken."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How entries are made and applied: what a run and its settings fix.

    gather: contributions themselves are the blobs, decoded by `up`; else owners reduce their parts and encode with `down`.
    feedback: decay of the residual, 0 for none. normalised: contributions are scaled to the mean number of steps.
    lease_samples: that each member is leased at least, whatever it announced: the settings ask for them.
    """

    fragments: tuple[Fragment, ...]
    codecs: Mapping[str, Codec]
    outer: OuterOptimizer
    up: str
    down: str
    start_members: int
    tokens_a_sample: int
    gather: bool = False
    feedback: float = 0.0
    normalised: bool = False
    lease_samples: int = 0

    def shares(self, contributions: Iterable[Weighed]) -> dict[PeerId, int]:
        """By sender, in their order: the fp32 bits of what each is multiplied by in the average of exactly these."""
        ordered = sorted(contributions, key=lambda each: each.sender)
        steps = {each.sender: each.num_steps for each in ordered} if self.normalised else None
        return shares({each.sender: each.weight_tokens for each in ordered}, steps)

    def due(self, sync: int) -> Fragment:
        """The fragment of a sync."""
        return self.fragments[fragment_of_sync(sync, len(self.fragments))]


def apply(machine: Machine, state: State, tensors: OuterTensors, entry: Entry, blob: BlobSource, fork: Fork | None = None) -> State:
    """Take one entry. `tensors` are moved in place, only after every blob was read and has its exact size.

    fork: where a forced view, not a certificate, commits the entry; a lineage begins with it.
    Raises ValueError where the entry does not fit S_r, KeyError where a blob is missing; nothing has changed then.
    """
    if entry.r != state.r or (entry.sync is not None and entry.sync != state.sync):
        raise ValueError(f"entry {entry.r} (sync {entry.sync}) does not follow state {state.r} (sync {state.sync})")
    leases, fresh, pool = move_leases(state, entry.transition())
    members = next_members(state, entry.sync is not None, entry.heard, entry.removed, entry.admitted, machine.start_members)
    roots = state.roots
    if entry.counted:
        fragment = machine.fragments[entry.fragment]
        anchor, momentum = tensors.anchor[fragment.elements], tensors.momentum[fragment.elements]
        for where, gradient in averaged(machine, fragment, entry, blob):
            machine.outer.apply(anchor[where], momentum[where], gradient)
        roots = (*roots[: entry.fragment], fragment_roots(tensors, fragment), *roots[entry.fragment + 1 :])
        members = tuple(_counted(member, entry) for member in members)
    tokens = sum(c.weight_tokens for c in entry.counted)
    return dataclasses.replace(
        state,
        r=state.r + 1,
        sync=state.sync + (entry.sync is not None),
        tokens=state.tokens + tokens,
        tokens_last_sync=tokens or state.tokens_last_sync,
        members=members,
        leases=leases,
        fresh_sample=fresh,
        pool=pool,
        parts=entry.next_parts,
        roots=roots,
        settings=entry.settings or state.settings,
        lineage=state.lineage if fork is None else fork.name,
        forks=state.forks if fork is None else (*state.forks, fork),
    )


def averaged(machine: Machine, fragment: Fragment, entry: Entry, blob: BlobSource) -> Iterator[tuple[slice, torch.Tensor]]:
    """The averaged pseudo-gradient of a fragment, a block at a time: (elements of the fragment, (n,) fp32, spent by the next).

    Every blob is read before the first block comes. Raises as apply does.
    """
    rows_of = [block_slice(each.first_block, each.num_blocks, fragment.num_chunks) for each in entry.sums]
    if [row for rows in rows_of for row in range(rows.start, rows.stop)] != list(range(fragment.num_chunks)):
        raise ValueError(f"the sums of entry {entry.r} do not tile {fragment.num_chunks} chunks")
    sums: list[tuple[slice, Codec, list[_Factored]]] = []
    for each, rows in zip(entry.sums, rows_of, strict=True):
        codec, count = machine.codecs[each.codec], rows.stop - rows.start
        terms = [(packed_tensor(blob(term.blob), codec, count), coefficient(term.coefficient_bits)) for term in each.terms]
        sums.append((rows, codec, terms))
    return _blocks(sums)


_Factored = tuple[torch.Tensor, float]
"""(n, chunk_bytes) uint8 and its factor."""


def _blocks(sums: list[tuple[slice, Codec, list[_Factored]]]) -> Iterator[tuple[slice, torch.Tensor]]:
    whole, scratch = torch.empty(2, BLOCK_CHUNKS, CHUNK_ELEMENTS)
    for rows, codec, terms in sums:
        for first in range(0, rows.stop - rows.start, BLOCK_CHUNKS):
            tile = slice(first, min(first + BLOCK_CHUNKS, rows.stop - rows.start))
            count, start = tile.stop - first, (rows.start + first) * CHUNK_ELEMENTS
            for index, (packed, factor) in enumerate(terms):
                add_decoded(codec, packed[tile], factor, whole[:count], scratch[:count], index == 0)
            yield slice(start, start + count * CHUNK_ELEMENTS), whole[:count].view(-1)


def packed_tensor(data: bytes, codec: Codec, num_chunks: int) -> torch.Tensor:
    """Encoded bytes as (num_chunks, chunk_bytes) uint8, a read-only view. Raises ValueError on another size."""
    if len(data) != num_chunks * codec.chunk_bytes:
        raise ValueError(f"{len(data)} bytes are not {num_chunks} chunks of {codec.name}")
    return packed_rows(data, codec)


def fragment_roots(tensors: OuterTensors, fragment: Fragment) -> tuple[str, str]:
    """Tree digests (hex) of a fragment's anchor and optimizer state."""
    where = fragment.elements
    return chain.tensor_root(tensors.anchor[where].numpy()).hex(), chain.tensor_root(tensors.momentum[where].numpy()).hex()


def state_after(previous_hash: Digest, entry_bytes: bytes, state: State) -> Digest:
    """h of `state`, which an entry's bytes made from the state of `previous_hash`."""
    return chain.next_hash(previous_hash, chain.entry_digest(entry_bytes), chain.header_digest(state.header()))


def first_hash(manifest_digest: Digest, state: State) -> Digest:
    """h_0."""
    return chain.next_hash(manifest_digest, b"", chain.header_digest(state.header()))


def _counted(member: Member, entry: Entry) -> Member:
    for each in entry.counted:
        if each.sender == member.peer and each.incarnation == member.incarnation:
            roots = list(member.last_roots)
            roots[entry.fragment] = each.root.hex()
            return dataclasses.replace(member, last_claim_samples=intervals.total(each.claim), last_roots=tuple(roots))
    return member


def initial_state(founder: Member, tensors: OuterTensors, fragments: tuple[Fragment, ...], planned_tokens: int) -> State:
    """S_0: the founder alone, its first lease granted, owner of everything."""
    blocks = num_blocks(fragments[0].num_chunks)
    return State(
        r=0,
        sync=0,
        lineage="",
        tokens=0,
        tokens_last_sync=planned_tokens,
        members=(dataclasses.replace(founder, last_roots=("",) * len(fragments)),),
        leases={founder.peer: ((0, founder.announced_samples),)},
        fresh_sample=founder.announced_samples,
        pool=(),
        parts=(Part(0, blocks, founder.peer),),
        roots=tuple(fragment_roots(tensors, fragment) for fragment in fragments),
    )
