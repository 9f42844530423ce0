"""Members and stores that tell the watch what they do, and tell time by their own machine's clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from decentra.ledger.chain import bytes_block
from decentra.ledger.entry import Entry
from decentra.ledger.store import Store, Vote
from decentra.rounds import compose
from decentra.rounds.member import Member
from decentra.rounds.residuals import Residuals
from decentra.types import Digest

if TYPE_CHECKING:
    from sims.experiments.protocol_fuzz.machines import Node
    from sims.experiments.protocol_fuzz.swarm import Swarm


class WatchedStore(Store):
    """A store that reports what it has written, while its process lives."""

    swarm: Swarm | None = None
    node: Node

    def _lives(self) -> bool:
        # The tasks of a process that was killed end a moment later; what they still write is on no disk.
        return self.swarm is not None and self.node.files is self.files

    def save_vote(self, vote: Vote) -> None:
        super().save_vote(vote)
        if self._lives():
            assert self.swarm is not None
            self.swarm.watches.of(vote.lineage).voted(self.node, self.incarnation, vote)

    def append(self, r: int, certified: bytes) -> None:
        super().append(r, certified)
        if self._lives():
            assert self.swarm is not None
            self.swarm.watches.logged(self.node, r, certified, self)

    def save_offer(self, sync: int, signed: bytes, lineage: str = "") -> None:
        super().save_offer(sync, signed, lineage)
        if self._lives():
            assert self.swarm is not None
            self.swarm.watches.of(lineage).offered(self.node, signed)


class WatchedResiduals(Residuals):
    """Residuals that report with which one a contribution was made, and which one it left."""

    def __init__(self, swarm: Swarm, residuals: Residuals) -> None:
        super().__init__(residuals._files)
        self._swarm = swarm
        self._sent: dict[int, Digest | None] = {}
        self.added: dict[int, torch.Tensor | None] = {}
        """By fragment: what the last contribution made of it was made with."""

    def before(self, fragment: int, counted_root: str, num_elements: int) -> torch.Tensor | None:
        found = super().before(fragment, counted_root, num_elements)
        self._sent[fragment] = None if found is None else bytes_block(found.numpy().tobytes())
        self.added[fragment] = found
        return found

    def keep(self, fragment: int, root: str, residual: torch.Tensor) -> None:
        super().keep(fragment, root, residual)
        self._swarm.watch.residual_kept(bytes.fromhex(root), self._sent.get(fragment), bytes_block(residual.numpy().tobytes()))


class WatchedMember(Member):
    """A member on a machine whose clock may be off and run fast or slow."""

    def __init__(self, swarm: Swarm, node: Node, *arguments: Any) -> None:
        self.swarm, self.node = swarm, node
        super().__init__(*arguments)
        self.residuals = WatchedResiduals(swarm, self.residuals)

    def now(self) -> float:
        return self.node.clock_offset_s + self.node.clock_rate * asyncio.get_running_loop().time()

    def wait(self, what: str, detail: str = "") -> None:
        super().wait(what, detail)
        if self.node.member is self:
            self.swarm.spring(what, self.node)

    def _turn(self, new_sync: bool) -> None:
        super()._turn(new_sync)
        if self.node.member is self:
            self.swarm.watches.stands(self.node, self.state, self.hash)


@contextlib.contextmanager
def watched_composing() -> Iterator[None]:
    """Tell the watch of every entry that a leader makes."""
    original = compose.entry

    def entry(member: Member, *arguments: Any) -> Entry | None:
        made = original(member, *arguments)
        if made is not None and isinstance(member, WatchedMember):
            member.swarm.watches.of(made.lineage).composed(member.node, member, made)
        return made

    compose.entry = entry
    try:
        yield
    finally:
        compose.entry = original
