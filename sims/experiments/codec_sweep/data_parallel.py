"""The control without local steps: the gradients of all members are averaged before each AdamW step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from decentra import build
from decentra.config import RunConfig
from decentra.train.evaluate import evaluate
from decentra.train.loop import train_plain


def data_parallel_losses(run: RunConfig, cache: Path) -> list[float]:
    """As swarm_losses, of one model that takes an AdamW step on the mean gradient of all members' batches."""
    batch = run.inner.batch_samples
    whole = dataclasses.replace(run, inner=dataclasses.replace(run.inner, batch_samples=run.start_members * batch))
    replica, source, heldout = build.outfit(whole, build.text(run, cache).files["train.bin"].parent, micro_batch=batch)
    losses = [evaluate(replica.model, heldout)]

    def on_step(steps_done: int, loss: float, tokens: int) -> bool:
        if steps_done % run.outer.inner_steps == 0:
            losses.append(evaluate(replica.model, heldout))
        return True

    train_plain(replica, source, run.stop_syncs * run.outer.inner_steps, on_step)
    return losses
