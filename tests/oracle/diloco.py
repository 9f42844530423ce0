"""The oracle: DiLoCo (arXiv 2311.08105, algorithm 1) of M replicas in one process and plain torch.

Shares with decentra only the first weights, the text and one inner step. The outer part is written again, a parameter
tensor at a time: pseudo-gradients anchor - local, their weighted mean in the order of sender ids, a Nesterov step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction

import numpy as np
import torch

from decentra.config import RunConfig
from decentra.data.stream import Source
from decentra.model.init import seeded
from decentra.train.step import Replica

Tensors = dict[str, torch.Tensor]


class Oracle:
    """Replicas by sender, created when first seen; `anchor` and `momentum` by parameter name."""

    def __init__(self, config: RunConfig, source: Source) -> None:
        self.config, self.source = config, source
        self.replicas: dict[str, Replica] = {}
        self.losses: list[dict[str, list[float]]] = []
        first = seeded(config.llama, config.seed)
        self.anchor: Tensors = {name: p.detach().clone() for name, p in first.named_parameters()}
        self.momentum: Tensors = {name: torch.zeros_like(p) for name, p in self.anchor.items()}
        self.tokens = 0
        self.tokens_last_sync = config.outer.inner_steps * config.inner.batch_samples * config.data.context * config.start_members

    def sync(self, ids_of: Mapping[str, list[int]]) -> None:
        """One outer step in which each sender trains on its ids, in their order."""
        senders = sorted(ids_of)
        self.losses.append({})
        locals_ = {sender: self._train(sender, ids_of[sender]) for sender in senders}
        weights = {sender: len(ids_of[sender]) * self.config.data.context for sender in senders}
        total = sum(weights.values())
        steps = {sender: len(self.losses[-1][sender]) for sender in senders}
        mean_steps = Fraction(sum(steps.values()), len(steps))
        scaled = {s: Fraction(weights[s], total) * (mean_steps / steps[s] if self.config.outer.normalises else 1) for s in senders}
        for name in self._due():
            anchor, mean = self.anchor[name], None
            for sender in senders:
                coefficient = torch.tensor(float(scaled[sender]), dtype=torch.float64).to(torch.float32)
                term = torch.mul(torch.sub(anchor, locals_[sender][name]), coefficient)
                mean = term if mean is None else torch.add(mean, term)
            assert mean is not None
            self.anchor[name] = self._outer_step(name, anchor, mean)
        self.tokens, self.tokens_last_sync = self.tokens + total, total

    def _due(self) -> Collection[str]:
        """Names of the parameters that this sync is of."""
        return list(self.anchor)

    def _outer_step(self, name: str, anchor: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """m = mu m + g; anchor - lr (g + mu m), or anchor - lr g; every product and every sum rounded on its own."""
        outer = self.config.outer
        lr, mu = torch.tensor(outer.lr, dtype=torch.float32), torch.tensor(outer.momentum, dtype=torch.float32)
        if outer.optimizer != "nesterov":
            return torch.sub(anchor, torch.mul(gradient, lr))
        momentum = torch.add(torch.mul(self.momentum[name], mu), gradient)
        self.momentum[name] = momentum
        direction = torch.add(torch.mul(momentum, mu), gradient)
        return torch.sub(anchor, torch.mul(direction, lr))

    def _train(self, sender: str, ids: list[int]) -> Tensors:
        """Local parameters after the inner steps; the inner optimizer's moments live on, the weights restart."""
        config = self.config
        if sender not in self.replicas:
            self.replicas[sender] = Replica(seeded(config.llama, config.seed), config.inner)
        replica, batch = self.replicas[sender], config.inner.batch_samples
        with torch.no_grad():
            for name, parameter in replica.model.named_parameters():
                parameter.copy_(self.anchor[name])
        self.losses[-1][sender] = []
        for step, start in enumerate(range(0, len(ids), batch), start=1):
            inputs, targets = self.source.batch(np.array(ids[start : start + batch], dtype=np.int64))
            self.losses[-1][sender].append(replica.inner_step(inputs, targets, self._lr(step)))
        return {name: p.detach().clone() for name, p in replica.model.named_parameters()}

    def _lr(self, step: int) -> float:
        """The slot stands at T + f Q when this step ends."""
        return self._rate(self.tokens + self.tokens_last_sync * step / self.config.outer.inner_steps)

    def _rate(self, tokens: float) -> float:
        """Warm-up over the swarm's tokens, then constant."""
        inner = self.config.inner
        assert inner.decay_tokens == 0, "the oracle knows no decay"
        return inner.lr * tokens / inner.warmup_tokens if tokens < inner.warmup_tokens else inner.lr
