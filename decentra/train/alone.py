"""Training without a swarm: the inner loop to its end, with checkpoints from which it goes on as if it had never stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from decentra.config import RunConfig, config_hash, differing_keys, run_bytes, run_from_bytes
from decentra.data.stream import Source
from decentra.errors import ConfigError, DecentraError
from decentra.train import checkpoint
from decentra.train.evaluate import Heldout, evaluate
from decentra.train.guard import SlotDropped
from decentra.train.loop import train_plain
from decentra.train.step import Replica


@dataclass(frozen=True, slots=True)
class Plan:
    """steps: in all. eval_every, save_every: steps between; at the end both are done anyway. keep: checkpoints."""

    steps: int
    eval_every: int
    save_every: int
    keep: int = 2


@dataclass(frozen=True, slots=True)
class Point:
    """How it goes after a step. loss: mean since the last point, nats a token; heldout_loss: None where it was not measured."""

    step: int
    tokens: int
    loss: float
    heldout_loss: float | None
    tokens_per_s: float


def train_alone(
    replica: Replica, source: Source, heldout: Heldout, run: RunConfig, plan: Plan, folder: Path, tell: Callable[[Point], None]
) -> Point:
    """Go on from the newest checkpoint in `folder`, or from the beginning.

    Raises ConfigError, StateError, DecentraError at a bad step that is not to be skipped, OSError from a full disk.
    """
    start = resume(replica, run, folder)
    batch_tokens = replica.config.batch_samples * source.shard.context
    losses: list[float] = []
    last_s, last_step = time.perf_counter(), start
    reached: list[Point] = []

    def on_step(done: int, loss: float, tokens: int) -> bool:
        nonlocal last_s, last_step
        losses.append(loss)
        ends = done == plan.steps
        if ends or done % plan.eval_every == 0:
            rate = (done - last_step) * batch_tokens / (time.perf_counter() - last_s)
            measured = evaluate(replica.model, heldout)
            reached.append(Point(done, tokens, sum(losses) / len(losses), measured, rate))
            tell(reached[-1])
            losses.clear()
            last_s, last_step = time.perf_counter(), done
        if ends or done % plan.save_every == 0:
            writer.save(done, state_of(replica), {"run": run_bytes(run).decode(), "config_hash": config_hash(run), "tokens": tokens})
        return True

    with _writing(folder, plan.keep) as writer:
        if start < plan.steps:
            try:
                train_plain(replica, source, plan.steps - start, on_step, start)
            except SlotDropped as why:
                raise DecentraError(f"{why}; the same command goes on from the newest checkpoint in {folder}") from why
        else:
            reached.append(Point(start, start * batch_tokens, float("nan"), evaluate(replica.model, heldout), 0.0))
    return reached[-1]


@contextlib.contextmanager
def _writing(folder: Path, keep: int) -> Iterator[checkpoint.Writer]:
    writer = checkpoint.Writer(folder, keep)
    try:
        yield writer
    finally:
        writer.close()


def state_of(replica: Replica) -> dict[str, Any]:
    """All that the next steps depend on, by name; tensors are the replica's own."""
    return {
        "model": dict(replica.model.named_parameters()),
        "optimizer": get_optimizer_state_dict(replica.model, replica.optimizers),
        "guard": replica.guard.state(),
        "rng": torch.get_rng_state(),
    }


def resume(replica: Replica, run: RunConfig, folder: Path) -> int:
    """Fill the replica from the newest checkpoint. Returns the steps that it has taken; 0 where there is none.

    Raises ConfigError naming the settings in which the checkpoint's run differs, StateError.
    """
    found = checkpoint.complete(folder)
    if not found:
        return 0
    about = checkpoint.about(found[-1])
    if keys := differing_keys(run_from_bytes(str(about["run"]).encode()), run):
        raise ConfigError(f"checkpoint {found[-1]} is of a run with another {', '.join(keys)}; give another --out, or its settings")
    state = checkpoint.load(found[-1], state_of(replica))
    set_optimizer_state_dict(replica.model, replica.optimizers, state["optimizer"])
    replica.guard.restore(state["guard"])
    torch.set_rng_state(state["rng"])
    return int(about["step"])
