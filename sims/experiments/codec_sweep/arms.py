"""What is compared: one run, its outer step and codec exchanged."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from decentra.config import CodecConfig, OuterConfig, RunConfig
from sims.experiments.paired import sizes

DENSE_OUTER = OuterConfig(inner_steps=30, lr=0.7, momentum=0.9)
"""What DiLoCo takes (arXiv 2311.08105)."""

SPARSE_OUTER = OuterConfig(inner_steps=30, optimizer="sgd", lr=2.0)
"""As in SparseLoCo (arXiv 2508.15706) the residual stands in for the momentum. It takes lr 1; over so few rounds, in which a
coordinate is sent about once, 2 was better than 1 and 4 in a smaller model."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to bring replicas together. limit_percent: how far its loss may be above the reference's, None where that is free."""

    outer: OuterConfig
    codec: CodecConfig
    limit_percent: float | None = None
    data_parallel: bool = False


def _dense(codec: str, limit_percent: float | None = None) -> Arm:
    return Arm(DENSE_OUTER, CodecConfig(up=codec, down=codec), limit_percent)


def _sparse(feedback: float, limit_percent: float | None = None) -> Arm:
    return Arm(SPARSE_OUTER, CodecConfig(up="topk", aggregate="gather", feedback=feedback), limit_percent)


REFERENCE = "fp32"
DATA_PARALLEL = "data-parallel"
ARMS = {
    REFERENCE: _dense("fp32"),
    "bf16": _dense("bf16"),
    "int8": _dense("int8"),
    "int4": _dense("int4", 0.5),
    "fp4": _dense("fp4", 0.5),
    "topk": _sparse(0.95, 1.0),
    "topk-no-feedback": _sparse(0.0),
    DATA_PARALLEL: Arm(DENSE_OUTER, CodecConfig(up="fp32", down="fp32"), data_parallel=True),
}
"""data-parallel is the control without local steps: the gradients of all replicas are averaged before each AdamW step."""

FULL = dataclasses.replace(sizes.FULL, name="codec_sweep", start_members=8, outer=DENSE_OUTER)
TINY = dataclasses.replace(sizes.TINY, name="codec_sweep", outer=DENSE_OUTER)
SIZES = {"full": FULL, "tiny": TINY}


def run_of(arm: str, seed: int, size: RunConfig) -> RunConfig:
    """The `[run]` of a cell. Seeds give the first weights and the order of the text, so arms of one seed begin and train alike."""
    return dataclasses.replace(size, seed=seed, outer=ARMS[arm].outer, codec=ARMS[arm].codec)
