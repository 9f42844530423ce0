"""The oracle of Streaming DiLoCo (arXiv 2501.18512, algorithm 2): fragments in turn, overlap, mixing; one process, plain torch.

The outer part is that of the DiLoCo oracle, of one fragment at a time. A replica goes on from where it stands; in its slot for
sync s it takes `overlap_steps` steps, then the fragment of sync s - 1 becomes alpha * its own + (1 - alpha) * the agreed one.
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


class StreamingOracle(Oracle):
    """fragments: names of the parameters of each. Every sender is counted in every sync from its first on."""

    def __init__(self, config: RunConfig, source: Source, fragments: Sequence[Collection[str]]) -> None:
        super().__init__(config, source)
        self.fragments = fragments
        self.num_syncs = 0
        self.before = (0, 0)
        """T and Q of the state before the last sync."""
        steps = config.outer.inner_steps // len(fragments)
        self.tokens_last_sync = steps * config.inner.batch_samples * config.data.context * config.start_members

    def sync(self, ids_of: Mapping[str, list[int]]) -> None:
        """One outer step of the due fragment in which each sender trains on its ids, in their order."""
        before = (self.tokens, self.tokens_last_sync)
        super().sync(ids_of)
        self.before = before
        self.num_syncs += 1

    def _due(self) -> Collection[str]:
        return self.fragments[self.num_syncs % len(self.fragments)]

    def _train(self, sender: str, ids: list[int]) -> Tensors:
        outer, batch = self.config.outer, self.config.inner.batch_samples
        known = sender in self.replicas
        if not known:
            self.replicas[sender] = Replica(seeded(self.config.llama, self.config.seed), self.config.inner)
            self._take(sender, list(self.anchor), 0.0)
        overlap = outer.overlap_steps if known else 0
        self.losses[-1][sender] = []
        for step, start in enumerate(range(0, len(ids), batch), start=1):
            if step == overlap + 1 and known:
                self._take(sender, self.fragments[(self.num_syncs - 1) % len(self.fragments)], outer.alpha if overlap else 0.0)
            tokens, last = (sum(self.before), self.before[1]) if step <= overlap else (self.tokens, self.tokens_last_sync)
            inputs, targets = self.source.batch(np.array(ids[start : start + batch], dtype=np.int64))
            lr = self._rate(tokens + last * step / (outer.inner_steps // len(self.fragments)))
            self.losses[-1][sender].append(self.replicas[sender].inner_step(inputs, targets, lr))
        return {name: p.detach().clone() for name, p in self.replicas[sender].model.named_parameters()}

    def _take(self, sender: str, names: Collection[str], alpha: float) -> None:
        with torch.no_grad():
            for name, parameter in self.replicas[sender].model.named_parameters():
                if name in names:
                    parameter.copy_(torch.lerp(parameter, self.anchor[name], 1.0 - alpha))
