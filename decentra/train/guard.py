"""Steps that would spoil a replica, found before they are taken: what is not finite, and what lies far above the steps before."""

from __future__ import annotations

import math
import statistics
from collections import deque

import torch
from torch import nn

WINDOW, SIGMAS = 128, 6.0
"""A loss or gradient norm so many standard deviations above the mean of so many steps is an outlier (as OLMo-core has it)."""

LEAST_SPREAD = 1e-3
"""Of the mean: what a standard deviation counts as at least, else a window of equal values would take noise for outliers."""


class SlotDropped(Exception):
    """A bad step came, and nothing of its slot is to be offered; the text says why. leave: nor is anything more to be trained here."""

    def __init__(self, why: str, leave: bool) -> None:
        super().__init__(why)
        self.leave = leave


class Guard:
    """What the last steps were like. Values that are refused count as well, so that a lasting change is taken for what it is."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = {"loss": deque(maxlen=WINDOW), "gradient norm": deque(maxlen=WINDOW)}

    def fault(self, loss: float, norm: float) -> str:
        """Why a step of this loss, nats a token, and norm of all gradients should not be taken; "" where it may."""
        faults = []
        for (name, window), value in zip(self._seen.items(), (loss, norm), strict=True):
            if not math.isfinite(value):
                faults.append(f"its {name} is {value}")
                continue
            if len(window) == WINDOW:
                mean = statistics.fmean(window)
                spread = max(statistics.pstdev(window, mean), LEAST_SPREAD * abs(mean))
                if value > mean + SIGMAS * spread:
                    sigmas = (value - mean) / spread
                    faults.append(f"its {name} {value:.4g} lies {sigmas:.0f} standard deviations above the {mean:.4g} of {WINDOW} steps")
            window.append(value)
        return " and ".join(faults)

    def state(self) -> dict[str, list[float]]:
        """What it has seen, for a checkpoint."""
        return {name: list(window) for name, window in self._seen.items()}

    def restore(self, state: dict[str, list[float]]) -> None:
        """Go on from what `state` gave."""
        for name, window in self._seen.items():
            window.clear()
            window.extend(state[name])


@torch.no_grad()
def guilty_tensor(model: nn.Module) -> str:
    """The first parameter whose gradient is not finite; where all are, the one with the largest norm."""
    worst, largest = "no parameter", -1.0
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        norm = float(parameter.grad.float().norm())
        if not math.isfinite(norm):
            return name
        if norm > largest:
            worst, largest = name, norm
    return worst
