"""The watches of all lineages of a swarm: each is judged by itself, with what it shares with the one it forked from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decentra.ledger.state import State
from decentra.ledger.store import Store
from decentra.rounds import records
from decentra.rounds.forks import fork_of
from decentra.types import Digest, PeerId
from decentra.wire.v1 import swarm_pb2
from sims.experiments.protocol_fuzz.invariants import Watch

if TYPE_CHECKING:
    from sims.experiments.protocol_fuzz.machines import Node
    from sims.experiments.protocol_fuzz.swarm import Swarm


class Watches:
    """The watch of each lineage, by name; that of the first is there from the start."""

    def __init__(self, swarm: Swarm) -> None:
        self._of = {"": Watch(swarm)}
        self._stood: dict[PeerId, str] = {}

    def of(self, lineage: str) -> Watch:
        """Raises KeyError where nobody has logged the entry that a lineage begins with."""
        return self._of[lineage]

    def logged(self, node: Node, r: int, certified: bytes, store: Store) -> None:
        """A member has logged an entry. A forced one belongs to the lineage that begins with it."""
        message = swarm_pb2.CertifiedEntry.FromString(certified)
        lineage, fork = records.parse_entry(message.entry).lineage, fork_of(message)
        if fork is not None:
            if fork.name not in self._of:
                self._of[fork.name] = self._of[lineage].forked(r)
            lineage = fork.name
        self._of[lineage].logged(node, r, certified, store)

    def stands(self, node: Node, state: State, state_hash: Digest) -> None:
        """A member stands at a state."""
        watch = self._of[state.lineage]
        if self._stood.setdefault(node.peer, state.lineage) != state.lineage:
            self._stood[node.peer] = state.lineage
            watch.came_over(node.peer)
        watch.stands(node, state, state_hash)
