"""Which H, P, tau and codec keep a swarm computing for a wanted share of the time, from what was measured. Pure.

A round of ours, in which N members average a fragment of E / P elements (up and down are the encoded bytes of one element):

    round = latency + work + (N - 1) / N * (E / P) * (up + down) / rate       a slot is H / P steps, tau of them hide as much of it
    idle  = max(0, round - tau * step)                                        utilization = slot / (slot + idle)

Scatter and gather each move (N - 1) / N of a fragment in each direction, one after the other. Latency: ROUND_DELAYS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ROUND_DELAYS = 10.5
"""One-way delays that the messages of a round take one after the other over a link of endless bandwidth
(`python -m sims.experiments.utilization_table`, its part on latency: 10.4)."""

LOSS_ORDER = ("fp32", "bf16", "int8", "int4")
"""Codecs from the least lossy on. fp4 has the size of int4 and loses more (docs/DECISIONS.md); topk wants feedback and another outer
optimizer, which a plan does not choose."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a plan is made for.

    step_s: an inner step of the slowest. rate_bytes_per_s: of the slowest link, in each direction at once. one_way_s: delay of a
    message. num_elements: of the model. num_layers: the most fragments. num_members: N. work_s: encoding and applying, for
    the whole model.
    """

    step_s: float
    rate_bytes_per_s: float
    one_way_s: float
    num_elements: int
    num_layers: int
    num_members: int
    work_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """codec: up and down. The others as in config.OuterConfig."""

    codec: str
    inner_steps: int
    overlap_steps: int
    fragments: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be chosen: steps from least to most, so many fragments, overlap steps up to the paper's advice (arXiv 2501.18512 sees
    no loss up to 5), and codecs from the least lossy on."""

    min_steps: int = 10
    max_steps: int = 300
    min_fragments: int = 1
    max_fragments: int = 8
    max_overlap_steps: int = 5
    codecs: tuple[str, ...] = LOSS_ORDER


@dataclass(frozen=True, slots=True)
class Plan:
    """choice: the first in the order of preference that reaches what is wanted, else the one that comes nearest."""

    choice: Choice
    utilization: float
    reached: bool


def round_s(measured: Measured, chunk_share: Mapping[str, float], choice: Choice) -> float:
    """Seconds of a round. chunk_share: encoded bytes of an element, by codec."""
    count = measured.num_members
    if count < 2:
        return measured.work_s / choice.fragments
    moved = (count - 1) / count * measured.num_elements / choice.fragments * 2 * chunk_share[choice.codec]
    return ROUND_DELAYS * measured.one_way_s + measured.work_s / choice.fragments + moved / measured.rate_bytes_per_s


def utilization(measured: Measured, chunk_share: Mapping[str, float], choice: Choice) -> float:
    """Share of the time that is compute."""
    slot_s = choice.inner_steps / choice.fragments * measured.step_s
    idle_s = max(0.0, round_s(measured, chunk_share, choice) - choice.overlap_steps * measured.step_s)
    return slot_s / (slot_s + idle_s)


def plan(measured: Measured, chunk_share: Mapping[str, float], bounds: Bounds, wanted: float = 0.95) -> Plan:
    """The setting that costs training least and reaches `wanted`, or the best there is.

    Preference. H and codec are raised together, a stage a codec: the least lossy one is kept while H grows by the n-th root
    of its range (n codecs allowed), then the next one takes over for as much again. So neither ever falls where a link gets
    slower, and neither is spent before the other. At each H and codec the fewest overlap steps, then the fewest fragments.
    """
    best: Plan | None = None
    for steps, codec in _stages(bounds):
        for choice in _at(measured, bounds, steps, codec):
            found = utilization(measured, chunk_share, choice)
            if found >= wanted:
                return Plan(choice, found, True)
            if best is None or found > best.utilization:
                best = Plan(choice, found, False)
    if best is None:
        raise ValueError(f"no H from {bounds.min_steps} to {bounds.max_steps} divides by {bounds.min_fragments} fragments or more")
    return best


def _stages(bounds: Bounds) -> Iterator[tuple[int, str]]:
    """(H, codec) in the order of preference: both never fall."""
    steps, growth = bounds.min_steps, bounds.max_steps / bounds.min_steps
    for stage, codec in enumerate(bounds.codecs, 1):
        # Rounded: the last stage ends at the last H.
        end = round(bounds.min_steps * growth ** (stage / len(bounds.codecs)))
        for each in range(steps, end + 1):
            yield each, codec
        steps = max(steps, end)


def _at(measured: Measured, bounds: Bounds, steps: int, codec: str) -> Iterator[Choice]:
    most = min(bounds.max_fragments, max(1, measured.num_layers))
    for overlap in range(bounds.max_overlap_steps + 1):
        for fragments in range(bounds.min_fragments, most + 1):
            if steps % fragments == 0 and overlap < steps // fragments:
                yield Choice(codec, steps, overlap, fragments)


# -- for people ---------------------------------------------------------------------------------------------------------


def sentences(measured: Measured, chunk_share: Mapping[str, float], present: Choice, found: Plan, wanted: float) -> tuple[str, str]:
    """What the present setting gives, and what would be chosen, each with its reasons."""
    return (
        f"measured: a step {_seconds(measured.step_s)}, a link of {measured.rate_bytes_per_s * 8 / 1e6:.3g} Mbit/s and "
        f"{_seconds(measured.one_way_s)} one way, {measured.num_members} members; {_named(present)} computes for "
        f"{utilization(measured, chunk_share, present):.1%} of the time: {_reasons(measured, chunk_share, present)}",
        f"for {wanted:.0%}: {_named(found.choice)}, {found.utilization:.1%}"
        f"{'' if found.reached else ', the best there is within its bounds'}: {_reasons(measured, chunk_share, found.choice)}",
    )


def _named(choice: Choice) -> str:
    return f"H {choice.inner_steps}, P {choice.fragments}, tau {choice.overlap_steps}, {choice.codec}"


def _reasons(measured: Measured, chunk_share: Mapping[str, float], choice: Choice) -> str:
    slot_s, whole_s = choice.inner_steps / choice.fragments * measured.step_s, round_s(measured, chunk_share, choice)
    hidden_s = min(whole_s, choice.overlap_steps * measured.step_s)
    size = measured.num_elements / choice.fragments * chunk_share[choice.codec]
    hides = f", {_seconds(hidden_s)} of it beside training" if hidden_s else ""
    return f"a slot lasts {_seconds(slot_s)}, a round of {size / 1e6:.3g} MB {_seconds(whole_s)}{hides}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 and not math.isclose(seconds, 1) else f"{seconds:.3g} s"
