"""The oracle of eager updates (arXiv 2502.12996, with fragments as in Streaming DiLoCo): one process, plain torch.

The agreed part is that of the DiLoCo oracle, of one fragment at a time. At the end of its slot a replica takes the outer step that
its own contribution alone, times its share, would make from the agreed anchor and momentum as they stand then, and goes on
from that point. Its next contribution of the fragment is that point - local. What the average of all made of the anchor and
the momentum, it sees when it takes the fragment's next such step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from diloco import Oracle, Tensors

from decentra.config import RunConfig
from decentra.data.stream import Source
from decentra.model.init import seeded
from decentra.train.step import Replica


class EagerOracle(Oracle):
    """fragments: names of the parameters of each. Every sender is there from the start and counted in every sync."""

    def __init__(self, config: RunConfig, source: Source, fragments: Sequence[Collection[str]]) -> None:
        super().__init__(config, source)
        self.fragments = fragments
        self.num_syncs = 0
        self.bases: dict[str, Tensors] = {}
        """By sender: where each of its parameters was last taken over."""
        self.last: dict[str, int] = {}
        """By sender: tokens of its last contribution."""
        self.slot_tokens = config.outer.inner_steps // len(fragments) * config.inner.batch_samples * config.data.context
        self.tokens_last_sync = self.slot_tokens * config.start_members
        self.before = (0, 0)
        """T and Q of the state before the last sync: what a slot that runs beside it knows."""

    def sync(self, ids_of: Mapping[str, list[int]]) -> None:
        """One outer step of the due fragment in which each sender trains on its ids, in their order."""
        senders, due = sorted(ids_of), self.fragments[self.num_syncs % len(self.fragments)]
        self.losses.append({})
        weights = {sender: len(ids_of[sender]) * self.config.data.context for sender in senders}
        sent: dict[str, Tensors] = {}
        for sender in senders:
            local = self._train(sender, ids_of[sender])
            sent[sender] = {name: torch.sub(self.bases[sender][name], local[name]) for name in due}
        for sender in senders:
            others = sum(self.last.get(other, self.slot_tokens) for other in senders if other != sender)
            for name in due:
                gradient = torch.mul(sent[sender][name], rounded(weights[sender] / (weights[sender] + others)))
                self.bases[sender][name] = self._step(name, gradient)[0]
        for name in due:
            mean = None
            for sender in senders:
                term = torch.mul(sent[sender][name], rounded(weights[sender] / sum(weights.values())))
                mean = term if mean is None else torch.add(mean, term)
            assert mean is not None
            self.anchor[name], self.momentum[name] = self._step(name, mean)
        self.before = (self.tokens, self.tokens_last_sync)
        self.tokens, self.tokens_last_sync, self.last = self.tokens + sum(weights.values()), sum(weights.values()), weights
        self.num_syncs += 1

    def _step(self, name: str, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where a gradient would move (anchor, momentum); neither moves."""
        before = self.momentum[name]
        try:
            return self._outer_step(name, self.anchor[name], gradient), self.momentum[name]
        finally:
            self.momentum[name] = before

    def _train(self, sender: str, ids: list[int]) -> Tensors:
        config, batch = self.config, self.config.inner.batch_samples
        known = sender in self.replicas
        if not known:
            self.replicas[sender] = Replica(seeded(config.llama, config.seed), config.inner)
            self.bases[sender] = dict(self.anchor)
        taken = self.fragments[(self.num_syncs - 1) % len(self.fragments)] if known else self.anchor
        with torch.no_grad():
            for name, parameter in self.replicas[sender].model.named_parameters():
                if name in taken:
                    parameter.copy_(self.bases[sender][name])
        tokens, last = (sum(self.before), self.before[1]) if known else (self.tokens, self.tokens_last_sync)
        self.losses[-1][sender] = []
        num_steps = len(ids) // batch
        for step, start in enumerate(range(0, len(ids), batch), start=1):
            inputs, targets = self.source.batch(np.array(ids[start : start + batch], dtype=np.int64))
            lr = self._rate(tokens + last * step / num_steps)
            self.losses[-1][sender].append(self.replicas[sender].inner_step(inputs, targets, lr))
        return {name: p.detach().clone() for name, p in self.replicas[sender].model.named_parameters()}


def rounded(share: float) -> torch.Tensor:
    """fp64 to fp32, once."""
    return torch.tensor(share, dtype=torch.float64).to(torch.float32)
