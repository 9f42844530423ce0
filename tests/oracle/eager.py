"""The oracle of eager updates (arXiv 2502.12996) in one process and plain torch; the averages land as late as they do in a swarm.

At the end of its slot for sync s a sender goes on, in the due fragment, from what an outer step by its own share alone would make
of the agreed anchor; what it moves from there is its next contribution. The average of s lands at the end of the next slot,
before the points that are made then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from diloco import Tensors
from streaming import StreamingOracle

from decentra.config import RunConfig
from decentra.data.stream import Source


class EagerOracle(StreamingOracle):
    """points: by sender, what it goes on from. `anchor` lags a sync behind; `landed` is that of the last one."""

    def __init__(self, config: RunConfig, source: Source, fragments: Sequence[Collection[str]]) -> None:
        super().__init__(config, source, fragments)
        self.points: dict[str, Tensors] = {}
        self._means: Tensors = {}

    def sync(self, ids_of: Mapping[str, list[int]]) -> None:
        """One slot of every sender on its ids, in their order; the average of the slot before lands at its end."""
        senders, due = sorted(ids_of), self._due()
        for sender in senders:
            self.points.setdefault(sender, {name: value.clone() for name, value in self.anchor.items()})
        self.losses.append({})
        moved: dict[str, Tensors] = {}
        for sender in senders:
            local = self._train(sender, ids_of[sender])
            moved[sender] = {name: torch.sub(self.points[sender][name], local[name]) for name in due}
        for name, mean in self._means.items():
            self.anchor[name] = self._outer_step(name, self.anchor[name], mean)
        self._means = {}
        tokens = {sender: len(ids_of[sender]) * self.config.data.context for sender in senders}
        for sender in senders:
            for name in due:
                self.points[sender][name] = self._ahead(name, torch.mul(moved[sender][name], _share(tokens[sender], self.tokens_last_sync)))
        total = sum(tokens.values())
        for name in due:
            terms = [torch.mul(moved[sender][name], _share(tokens[sender], total)) for sender in senders]
            self._means[name] = terms[0]
            for term in terms[1:]:
                self._means[name] = torch.add(self._means[name], term)
        self.before = (self.tokens, self.tokens_last_sync)
        self.tokens, self.tokens_last_sync = self.tokens + total, total
        self.num_syncs += 1

    def landed(self) -> Tensors:
        """The anchor once the average that is under way has landed."""
        return {name: self._ahead(name, self._means[name]) if name in self._means else value for name, value in self.anchor.items()}

    def _ahead(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """What an outer step would make of the anchor, which stays as it is, and so does the momentum."""
        momentum = self.momentum[name]
        moved = self._outer_step(name, self.anchor[name], gradient)
        self.momentum[name] = momentum
        return moved

    def _take(self, sender: str, names: Collection[str], alpha: float) -> None:
        assert alpha == 0.0, "an eager replica mixes nothing"
        with torch.no_grad():
            for name, parameter in self.replicas[sender].model.named_parameters():
                if name in names:
                    parameter.copy_(self.points[sender][name])


def _share(weight: int, total: int) -> torch.Tensor:
    return torch.tensor(weight / total, dtype=torch.float64).to(torch.float32)
