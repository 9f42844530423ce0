"""What is compared: one run, its outer part exchanged."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from decentra.config import CodecConfig, OuterConfig, RunConfig
from sims.experiments.paired import sizes

PLAIN = OuterConfig(inner_steps=30, lr=0.7, momentum=0.9)
"""DiLoCo (arXiv 2311.08105): the whole model every H steps, and trainers that wait for it."""

STREAMING = dataclasses.replace(PLAIN, fragments=3)
"""Streaming DiLoCo (arXiv 2501.18512): a fragment for each layer, one of them every 10 steps."""

OVERLAP = dataclasses.replace(STREAMING, overlap_steps=5, alpha=0.5)
"""As there: tau of no more than 5 steps, alpha one half."""

EAGER = dataclasses.replace(PLAIN, merge="eager", lr=0.4)
"""arXiv 2502.12996: a round may take a whole outer step. What others did is a step late: with 4 replicas that swings, and grows, at a
rate of 0.7 and momentum 0.9, along directions that H inner steps cover by half or more."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to bring replicas together."""

    outer: OuterConfig
    codec: CodecConfig


BF16, INT4 = CodecConfig(up="bf16", down="bf16"), CodecConfig(up="int4", down="int4")
REFERENCE = "plain"
ARMS = {
    REFERENCE: Arm(PLAIN, BF16),
    "streaming": Arm(STREAMING, BF16),
    "overlap": Arm(OVERLAP, BF16),
    "overlap-int4": Arm(OVERLAP, INT4),
    "eager": Arm(EAGER, BF16),
}
"""bf16 where 4 bits are not the question, as in the papers; in the codec sweep it costs nothing."""

FULL = dataclasses.replace(sizes.FULL, name="streaming_quality", start_members=4, outer=PLAIN)
TINY = dataclasses.replace(
    sizes.TINY, name="streaming_quality", outer=PLAIN, model=dataclasses.replace(sizes.TINY.model, num_layers=STREAMING.fragments)
)
SIZES = {"full": FULL, "tiny": TINY}


def run_of(arm: str, seed: int, size: RunConfig) -> RunConfig:
    """The `[run]` of a cell. Seeds give the first weights and the order of the text, so arms of one seed begin and train alike.

    size: its stop_syncs are rounds of H steps, in which every fragment is synced once.
    """
    outer, codec = ARMS[arm].outer, ARMS[arm].codec
    return dataclasses.replace(size, seed=seed, outer=outer, codec=codec, stop_syncs=size.stop_syncs * outer.fragments)
