"""Eager merges: a replica goes on from its own contribution at once, and counts the next one from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from decentra.outer.fragments import Fragment
from decentra.rounds import merge
from decentra.types import CHUNK_ELEMENTS

if TYPE_CHECKING:
    from decentra.rounds.member import Member


def base_of(member: Member, fragment: Fragment) -> torch.Tensor:
    """(n,) fp32: where the replica took the fragment over last. The agreed anchor moves at the fragment's own syncs alone."""
    point = member.carried.points.get(fragment.index)
    return member.tensors.anchor[fragment.elements] if point is None else point


async def go_on_at_once(member: Member, sync: int, tokens: int, packed: torch.Tensor) -> None:
    """Put the provisional point of a contribution of so many tokens where the trainer takes it from.

    packed: (n, chunk_bytes) uint8. Nothing comes of it where the swarm went on meanwhile.
    """
    machine = member.run.machine
    share = merge.expected_share(member.state, member.peer, tokens, machine.tokens_a_sample, member.run.config.slot_samples)
    point = await member.ports.run_blocking(_fill, member, machine.due(sync), share, packed)
    if member.state.sync == sync and not member.carried.fresh:
        member.carried.goes_on_from(sync, point)
        member.changed.notify()


def _fill(member: Member, fragment: Fragment, share: float, packed: torch.Tensor) -> torch.Tensor:
    """In place of the base that the contribution was made on, which is done with: one such copy of the model is held, no more."""
    where, point = fragment.elements, member.carried.points.get(fragment.index)
    point = torch.empty(fragment.num_chunks * CHUNK_ELEMENTS) if point is None else point
    merge.provisional_point(member.run.machine, packed, share, member.tensors.anchor[where], member.tensors.momentum[where], point)
    member.ports.trainer.local[where].copy_(point)
    return point
