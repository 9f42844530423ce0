"""What a member knows beyond its rounds: peers elsewhere, another lineage to go over to, doubts about its own replica."""

from __future__ import annotations

from dataclasses import dataclass, field

from decentra.ledger.state import Fork
from decentra.types import Digest, PeerId


@dataclass(frozen=True, slots=True)
class Crossing:
    """A decision to go over: the lineage, the forced views that lead to it, and members in it, the newest first."""

    name: str
    forks: tuple[Fork, ...]
    donors: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A doubt about this replica at entry r. certified: the h_r that an entry carries, b"" where members merely disagree."""

    r: int
    certified: Digest = b""
    holders: tuple[PeerId, ...] = ()


@dataclass(slots=True)
class Outlook:
    """known: peers that can be dialled. met: one that a message has shown to stand elsewhere, to be asked.

    claims: by lineage, since when and until when its members said that it is at work, seconds of the loop's clock.
    looked_into: members whose h_r was compared in this round. restored_sync: when this replica was last put right.
    disputed: members agree on no h_r; this one neither votes nor leads meanwhile.
    """

    known: tuple[PeerId, ...] = ()
    met: PeerId | None = None
    claims: dict[str, tuple[float, float]] = field(default_factory=dict)
    crossing: Crossing | None = None
    suspect: Suspect | None = None
    looked_into: set[PeerId] = field(default_factory=set)
    disputed: bool = False
    restored_sync: int = -2

    def is_urgent(self) -> bool:
        """Whether something must be done before rounds go on."""
        return self.crossing is not None or self.suspect is not None
