"""Bytes, rates and hours of an arm: arithmetic on our own encoded bytes, not a measurement.

A round of N replicas on links of one rate each way takes each of them 2 (N - 1) / N times its encoded bytes, up as well as
down, and about DELAYS one-way delays (sims/results/utilization_table.txt). Coding, hashing and disks are left out. A replica
computes steps of 6 flop a parameter and token; where a round outlasts what may hide it, it stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decentra import build
from decentra.config import RunConfig
from decentra.outer.fragments import fragments
from decentra.scaling.planner import ROUND_DELAYS
from decentra.types import CHUNK_ELEMENTS
from sims.experiments.paired.cells import contribution_bytes
from sims.experiments.streaming_quality.arms import Arm

DELAYS = ROUND_DELAYS
DELAY_S = 0.05
"""One way, as in the demo."""

RATES_MBIT = (20, 100, 1000)
FLOP_A_TOKEN = 6
"""For each parameter, forward and backward."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A swarm's training as the arithmetic sees it. sync_bytes: encoded bytes of each fragment in turn. hidden_steps: of the slot
    after it that a round may take before the trainers stand still. num_rounds: of all fragments."""

    members: int
    step_s: float
    slot_steps: int
    hidden_steps: int
    sync_bytes: Sequence[int]
    num_rounds: int

    @property
    def wire_bytes(self) -> list[float]:
        """What one replica sends in each sync; it receives as much."""
        return [2 * (self.members - 1) / self.members * size for size in self.sync_bytes]

    @property
    def sent_bytes(self) -> float:
        """What one replica sends in all."""
        return self.num_rounds * sum(self.wire_bytes)

    @property
    def peak_mbit(self) -> float:
        """The rate at which the largest sync is over in the time that it may take: tau, or a slot where nothing overlaps."""
        return 8e-6 * max(self.wire_bytes) / (self.step_s * (self.hidden_steps or self.slot_steps))

    def hours(self, rate_mbit: float) -> float:
        """From the first step to the end of the last round."""
        slot_s, hidden_s = self.step_s * self.slot_steps, self.step_s * self.hidden_steps
        rounds_s = [8e-6 * size / rate_mbit + DELAYS * DELAY_S for size in self.wire_bytes]
        idle_s = [max(0.0, round_s - hidden_s) for round_s in rounds_s]
        return (self.num_rounds * (len(rounds_s) * slot_s + sum(idle_s)) - idle_s[-1] + rounds_s[-1]) / 3600


@dataclass(frozen=True, slots=True)
class LargeModel:
    """A model too large to train here, by the arms' outer parts stretched to its size.

    flops: what a replica sustains. inner_steps, fragments: H, and P of the streaming arms. tau is the share of a slot that it is
    here.
    """

    name: str
    params: float
    members: int
    tokens: float
    tokens_a_step: int
    flops: float
    inner_steps: int
    fragments: int


BILLION = LargeModel("1B", 1e9, 4, 20e9, 32_768, 66e12, 96, 8)
"""Replicas of one GPU that sustains 66 Tflop/s, 20 tokens a parameter, and the paper's 8 fragments of 1B."""

HERE_FLOPS = 88e9
"""One core: 5,437 tokens/s of 2.7 million parameters (sims/results/slice-2.txt)."""


def encoded_bytes(run: RunConfig) -> list[int]:
    """Of one contribution of each fragment of a run, digests counted."""
    layout, codec = build.layout_of(run, build.first_model(run)), build.codecs()[run.codec.up]
    return [contribution_bytes(codec, part.num_chunks) for part in fragments(layout, run.outer.fragments)]


def workload_of(run: RunConfig) -> Workload:
    """That of a cell."""
    params = sum(parameter.numel() for parameter in build.first_model(run).parameters())
    tokens_a_step = run.inner.batch_samples * run.data.context
    return Workload(
        members=run.start_members,
        step_s=FLOP_A_TOKEN * params * tokens_a_step / HERE_FLOPS,
        slot_steps=run.outer.slot_steps,
        hidden_steps=_hidden_steps(run.outer.slot_steps, run.outer.overlap_steps, run.outer.merge),
        sync_bytes=encoded_bytes(run),
        num_rounds=run.stop_syncs // run.outer.fragments,
    )


def scaled(arm: Arm, model: LargeModel) -> Workload:
    """An arm at the size of a large model, in fragments of one size."""
    outer = arm.outer
    parts = model.fragments if outer.fragments > 1 else 1
    slot_steps = model.inner_steps // parts
    overlap_steps = slot_steps * outer.overlap_steps // outer.slot_steps
    chunks = -(-int(model.params) // parts // CHUNK_ELEMENTS)
    size = contribution_bytes(build.codecs()[arm.codec.up], chunks)
    return Workload(
        members=model.members,
        step_s=FLOP_A_TOKEN * model.params * model.tokens_a_step / model.flops,
        slot_steps=slot_steps,
        hidden_steps=_hidden_steps(slot_steps, overlap_steps, outer.merge),
        sync_bytes=[size] * parts,
        num_rounds=round(model.tokens / (model.members * model.tokens_a_step * model.inner_steps)),
    )


def _hidden_steps(slot_steps: int, overlap_steps: int, merge: str) -> int:
    return slot_steps if merge == "eager" else overlap_steps
