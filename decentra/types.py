"""Small values that several rooms share: ids, intervals, the plan of a slot, the report of a round."""

from __future__ import annotations

from dataclasses import dataclass, field

from decentra.config import InnerConfig

CHUNK_ELEMENTS = 4096
"""Elements of canonical layout in one chunk: the unit of partitioning, coding and hashing."""

BLOCK_CHUNKS = 64
"""Chunks in one block: the unit of transfer and digest of a tensor (1 MiB of fp32)."""

FILE_BLOCK_BYTES = 1 << 20
"""Bytes in one block of a file."""

PROTOCOL_VERSION = 2

PeerId = str
"""base32 of the first 20 bytes of BLAKE3(Ed25519 public key), lower case, 32 characters."""

Digest = bytes
"""32 bytes of BLAKE3, domain-separated."""

Interval = tuple[int, int]
"""Half-open interval [start, stop) of sample ids."""

Intervals = tuple[Interval, ...]
"""Ordered intervals; for a lease, the order in which its samples are to be trained."""


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """What a trainer is to do for one sync: take over what the last one agreed, take inner steps, hand over.

    sync: the outer step this slot ends in.
    lease: sample ids that may be trained, in order; the slot uses a prefix. None of them is in the replica yet.
    num_steps: inner steps to take (fewer if the lease runs dry).
    tokens_committed: T, tokens that committed entries have counted.
    tokens_last_sync: Q, tokens of the last counted sync (planned tokens before the first).
    evaluate: also measure the held-out loss of the anchor before the first step.
    fresh: take the anchor over with every fragment; else only with the one that was synced last.
    overlap_steps: inner steps to take before anything is taken over, for the last sync is not decided yet: this plan then holds
        as far as that, and the final one, asked for there, from there on. It is never fresh.
    alpha: the share of its own value that the fragment keeps when it takes the anchor over.
    provisional: before its first step the fragment takes over what stands in the contribution buffer: the point that this
        replica's own last contribution leads to.
    first_step: steps of the slot that count as done before it begins, for others are so far: it takes that many fewer.
    budget_s: 0 where steps are counted; else the slot ends by time, num_steps is a guess, and the next three, seconds of this
        machine's monotonic clock, say when. began_s: when the last certificate came, or will, and the budget began. ends_s: no step that
        would end later is begun, but for the first of the slot. step_s: what a step took lately; 0 is not known.
    inner: what the swarm's settings now say of the inner optimizer; None: what the replica was made with.
    """

    sync: int
    lease: Intervals
    num_steps: int
    tokens_committed: int
    tokens_last_sync: int
    evaluate: bool
    fresh: bool = True
    overlap_steps: int = 0
    alpha: float = 0.0
    provisional: bool = False
    first_step: int = 0
    budget_s: float = 0.0
    began_s: float = 0.0
    ends_s: float = 0.0
    step_s: float = 0.0
    inner: InnerConfig | None = None


@dataclass(frozen=True, slots=True)
class SlotResult:
    """What a trainer did in a slot; its local parameters of the due fragment then stand in the contribution buffer.

    num_samples: samples trained, a prefix of the plan's lease. loss: mean inner loss in nats a token.
    heldout_loss: of the anchor, in nats a token, where the plan asked for it. compute_s: seconds in inner steps.
    wait_s: seconds in which it stood still after its overlap steps, for the round before was not over.
    fault: why nothing of it is to be offered, "" where it may be; leave: and why this node is to leave.
    """

    sync: int
    num_steps: int
    num_samples: int
    num_tokens: int
    loss: float
    compute_s: float
    heldout_loss: float | None = None
    wait_s: float = 0.0
    fault: str = ""
    leave: bool = False


@dataclass(slots=True)
class RoundReport:
    """What one round did, as seen by one member. All `_s` are seconds of the loop's clock; at_s: when it was applied."""

    entry: int
    sync: int | None
    state_hash: str
    at_s: float = 0.0
    alive: int = 0
    in_view: int = 0
    averaged: int = 0
    tokens: int = 0
    times_s: dict[str, float] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    attempts: int = 1
    left_out: dict[PeerId, str] = field(default_factory=dict)
    heldout_loss: float | None = None
