"""E_r: what was agreed. Plain values; rounds/records turns them into the bytes that are signed and hashed."""

from __future__ import annotations

from dataclasses import dataclass

from decentra.ledger.state import Member, Part, Transition
from decentra.types import Digest, Intervals, PeerId


@dataclass(frozen=True, slots=True)
class Counted:
    """A contribution that the entry counts. root: its name; claim: sample ids it trained; weight_tokens: int64."""

    sender: PeerId
    incarnation: int
    root: Digest
    weight_tokens: int
    num_steps: int
    claim: Intervals
    base_sync: int


@dataclass(frozen=True, slots=True)
class Term:
    """One blob to add and the fp32 bits of its coefficient."""

    blob: Digest
    coefficient_bits: int


@dataclass(frozen=True, slots=True)
class Sum:
    """What becomes the averaged pseudo-gradient of a run of blocks: terms decoded by `codec`, added in order."""

    first_block: int
    num_blocks: int
    codec: str
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One ledger record. sync None: an entry without contributions, which advances r and not s.

    settings: what holds from here on (see decentra.settings), "" for no change; wishes: signed, of a quorum, for exactly these.
    """

    run_id: bytes
    lineage: str
    r: int
    state_hash: Digest
    sync: int | None
    fragment: int
    counted: tuple[Counted, ...]
    sums: tuple[Sum, ...]
    heard: tuple[PeerId, ...]
    admitted: tuple[Member, ...]
    removed: tuple[PeerId, ...]
    returned: dict[PeerId, Intervals]
    granted: dict[PeerId, Intervals]
    next_parts: tuple[Part, ...]
    settings: str = ""
    wishes: tuple[bytes, ...] = ()

    def transition(self) -> Transition:
        """Claims, returns and grants."""
        return Transition({c.sender: c.claim for c in self.counted if c.claim}, self.returned, self.granted)

    def blobs(self) -> tuple[Digest, ...]:
        """Digests of all blobs the entry needs."""
        return tuple(term.blob for each in self.sums for term in each.terms)
