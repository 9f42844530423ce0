"""A model that gives the paper's figures back, to learn how its simulator counts. Nothing of ours is measured with it.

A step is a forward pass of a third and a backward pass of two thirds of its time, layer after layer. A layer that is due is
sent as soon as the backward pass is through with it; the link takes one after the other, and each weighs `bits` for every
parameter: an all-reduce among two that moves 2 (M - 1) / M = 1 times its size. The forward pass waits for what was sent in the
step before; with overlap, for what was sent one step earlier. Fragments are strided: p, p + P, p + 2 P.
"""

from __future__ import annotations

from sims.experiments.utilization_table.published import SIZES, TABLE, WANTED, Size, gbps, point_of

BITS, FP4_SHARE = 13.35, 1 / 4
"""Bits a parameter of the size's name, for which the published figures agree with one another; bf16 of five parameters in six."""

FORWARD = 1 / 3
STEPS = 400
_ROWS = {"data-parallel": (1, False, 0), "diloco": (100, False, 0), "streaming": (100, True, 0), "overlap": (100, True, 1),
         "overlap-fp4": (100, True, 1)}  # fmt: skip
"""By row: H, whether by fragments, tau."""


def utilization(row: str, size: Size, rate_gbps: float, bits: float = BITS) -> float:
    """Compute / time of the second half of STEPS steps."""
    period, by_fragments, tau = _ROWS[row]
    fragments = size.layers // 3 if by_fragments else 1
    share = FP4_SHARE if row == "overlap-fp4" else 1.0
    layer_s = share * bits * size.params / size.layers / (rate_gbps * 1e9)
    forward_s, backward_s = FORWARD * size.step_s, (1 - FORWARD) * size.step_s / size.layers
    due = {((p + 1) * period) // fragments - 1: p for p in range(fragments)}
    now_s = link_s = half_s = 0.0
    arrives_s = {-2: 0.0, -1: 0.0}
    for step in range(STEPS):
        if step == STEPS // 2:
            half_s = now_s
        now_s = max(now_s, arrives_s.pop(step - 1 - tau, 0.0)) + forward_s
        fragment = due.get(step % period)
        for layer in reversed(range(size.layers)):
            now_s += backward_s
            if fragment is not None and layer % fragments == fragment:
                link_s = max(link_s, now_s) + layer_s
                arrives_s[step] = link_s
    return (STEPS - STEPS // 2) * size.step_s / (now_s - half_s)


def hidden_steps(row: str, size: Size) -> float:
    """How much of a transfer the backward pass that ends a slot hides, in steps: from the first layer it is done with, on average."""
    fragments = size.layers // 3 if _ROWS[row][1] else 1
    deepest = [size.layers - fragments + p for p in range(fragments)]
    return (1 - FORWARD) * sum(deepest) / len(deepest) / size.layers


def deviations(bits: float = BITS) -> list[int]:
    """For each published figure, by how many grid steps the model's is higher."""
    found = []
    for row, sizes in TABLE.items():
        for size, figures in zip(SIZES, sizes, strict=True):
            for wanted, printed in zip(WANTED, figures, strict=True):
                point = published = point_of(printed)
                while utilization(row, size, gbps(point), bits) < wanted:
                    point += 1
                while utilization(row, size, gbps(point - 1), bits) >= wanted:
                    point -= 1
                found.append(point - published)
    return found
