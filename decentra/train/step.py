"""One inner step of one replica, and its parameters in and out. Nothing here knows of a swarm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from decentra.config import InnerConfig
from decentra.data.tokenizer import BOS
from decentra.model.llama import documents_of
from decentra.train.guard import Guard, SlotDropped, guilty_tensor
from decentra.train.optimizer import inner_optimizers, set_learning_rate

Views = Mapping[str, Tensor]
"""fp32 tensors by parameter name, shaped like the parameters, in memory that someone else owns."""


class Replica:
    """A model copy with its inner optimizers. Their moments live on across slots."""

    def __init__(
        self, model: nn.Module, config: InnerConfig, micro_batch: int = 0, on_bad_step: str = "skip", note: Callable[[str], None] = print
    ) -> None:
        """micro_batch: samples of one forward pass; 0 means the whole batch at once. on_bad_step: see NodeConfig. note: takes a
        sentence on each bad step."""
        self.model = model
        self.config = config
        self.optimizers = inner_optimizers(model, config)
        self._micro_batch, self._on_bad_step, self._note = micro_batch, on_bad_step, note
        self._device = next(model.parameters()).device
        self.guard = Guard()

    def inner_step(self, inputs: Tensor, targets: Tensor, lr: float) -> float:
        """Take one step. inputs, targets: (B, T) int64. Returns the mean cross entropy before it, in nats a token.

        A bad step (train.guard) is not taken; raises SlotDropped where its slot goes with it.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        size = self._micro_batch or len(inputs)
        total = 0.0
        for start in range(0, len(inputs), size):
            part = slice(start, start + size)
            tokens = inputs[part].to(self._device)
            logits = self.model(tokens, documents_of(tokens, BOS) if self.config.mask_documents else None)
            # Sums over the whole batch's tokens, so that uneven micro batches add up to the full batch's mean.
            loss = summed_loss(logits, targets[part].to(self._device)) / targets.numel()
            torch.autograd.backward(loss)
            total += loss.item()
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if fault := self.guard.fault(total, float(norm)):
            self._refuse(fault)
            return total
        if self.config.clip > 0:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.clip, norm)
        for optimizer in self.optimizers:
            set_learning_rate(optimizer, lr)
            optimizer.step()
        return total

    def _refuse(self, fault: str) -> None:
        said = f"a bad step: {fault}; of all gradients look at {guilty_tensor(self.model)}"
        self._note(f"{said}; {BAD_STEPS[self._on_bad_step]}")
        if self._on_bad_step != "skip":
            raise SlotDropped(said, self._on_bad_step == "stop")


BAD_STEPS = {"skip": "it is skipped", "drop": "nothing of this slot is offered", "stop": "this node leaves"}
"""What is done about a bad step, by NodeConfig.on_bad_step."""


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy summed over tokens, in nats. logits: (B, T, V) fp32; targets: (B, T) int64. Returns () fp32."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


@torch.no_grad()
def copy_in(model: nn.Module, views: Views, names: Collection[str] | None = None, alpha: float = 0.0) -> None:
    """Parameters := alpha * parameters + (1 - alpha) * views, in model order, those of `names` alone where it is given.

    alpha 0 gives the views' own bits, 1 leaves all as it is. Raises KeyError where a name is missing.
    """
    if alpha == 1.0:
        return
    for parameter, view in _pairs(model, views, names):
        if alpha:
            parameter.lerp_(view.to(parameter.device), 1.0 - alpha)
        else:
            parameter.copy_(view)


@torch.no_grad()
def copy_out(model: nn.Module, views: Views, names: Collection[str] | None = None) -> None:
    """Views := parameters, in model order, those of `names` alone where it is given. Raises KeyError where a name is missing."""
    for parameter, view in _pairs(model, views, names):
        view.copy_(parameter)


def _pairs(model: nn.Module, views: Views, names: Collection[str] | None) -> Iterator[tuple[Tensor, Tensor]]:
    for name, parameter in model.named_parameters():
        if names is None or name in names:
            view = views[name]
            assert view.shape == parameter.shape, f"{name}: view {tuple(view.shape)}, parameter {tuple(parameter.shape)}"
            yield parameter, view
