"""Processes of the overlap benchmark, each on the core that it is given.

    python -m sims.benchmarks.overlap_node node SETTINGS ARGUMENTS...    a node daemon, as `decentra node ARGUMENTS` starts it
    python -m sims.benchmarks.overlap_node trainer SETTINGS --folder F   its trainer, started by it
    python -m sims.benchmarks.overlap_node plain SETTINGS RUN DATA N     the same trainer without a swarm, N steps
    python -m sims.benchmarks.overlap_node mover SETTINGS BYTES PERIOD_S moves so many bytes through memory in each period

Every trainer writes a line an inner step: when it ended, and how long it took.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from decentra import build
from decentra.config import RunConfig, run_from_bytes
from decentra.node.supervisor import Supervisor

NICE = 5
"""As node trainers are."""
PIECES = 50
"""Of what the mover moves in a period, evenly over it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """core, trainer_core: of the process, and of the trainer that it starts. steps: the file of lines. sleep_s: instead of a step,
    0 for a real one.
    """

    core: int
    trainer_core: int
    steps: str
    sleep_s: float = 0.0

    def text(self) -> str:
        """As an argument."""
        return json.dumps(asdict(self))


class Timed:
    """A replica of which every inner step is written down; one that sleeps instead has no gradients."""

    def __init__(self, replica: Any, settings: Settings) -> None:
        self.model, self.config = replica.model, replica.config
        self._replica, self._sleep_s = replica, settings.sleep_s
        self._file = Path(settings.steps).open("a", buffering=1)  # noqa: SIM115 - until the process ends

    def inner_step(self, inputs: torch.Tensor, targets: torch.Tensor, lr: float) -> float:
        """See train.step.Replica."""
        start_s = time.monotonic()
        if self._sleep_s:
            time.sleep(self._sleep_s)
            loss = 0.0
        else:
            loss = self._replica.inner_step(inputs, targets, lr)
        end_s = time.monotonic()
        self._file.write(f"{end_s} {end_s - start_s}\n")
        return loss


class PinnedSupervisor(Supervisor):
    """Starts the trainer of this module."""

    settings: Settings

    def _command(self) -> list[str]:
        own = Settings(self.settings.trainer_core, -1, self.settings.steps, self.settings.sleep_s)
        return ["sims.benchmarks.overlap_node", "trainer", own.text()]


def node(settings: Settings, arguments: list[str]) -> int:
    """A daemon until its run ends."""
    from decentra.cli import node as command
    from decentra.node import daemon

    PinnedSupervisor.settings = settings
    daemon.Supervisor = PinnedSupervisor  # type: ignore[attr-defined,misc]
    return command.main(arguments)


def trainer(settings: Settings, folder: Path) -> None:
    """The trainer of a daemon until that ends it."""
    from decentra.node.trainer import run_trainer

    def outfit(run: RunConfig, data_dir: Path, micro_batch: int, device: str, on_bad_step: str) -> tuple[Any, Any, Any]:
        replica, source, heldout = build.outfit(run, data_dir, micro_batch, device, on_bad_step)
        return Timed(replica, settings), source, heldout

    run_trainer(folder, outfit)


def plain(settings: Settings, run_path: Path, data_dir: Path, num_steps: int) -> None:
    """Steps without a swarm."""
    from decentra.train.loop import train_plain

    os.nice(NICE)
    torch.set_num_threads(1)
    replica, source, _ = build.outfit(run_from_bytes(run_path.read_bytes()), data_dir)
    train_plain(Timed(replica, settings), source, num_steps)  # type: ignore[arg-type]


def move(num_bytes: int, period_s: float) -> None:
    """Until it is killed."""
    size = num_bytes // PIECES
    source, target = torch.ones(2, size, dtype=torch.uint8)
    due_s = time.monotonic()
    while True:
        ctypes.memmove(target.data_ptr(), source.data_ptr(), size)
        due_s += period_s / PIECES
        time.sleep(max(0.0, due_s - time.monotonic()))


def main() -> int:
    """Pin this process, then what it is asked to be."""
    what, settings, arguments = sys.argv[1], Settings(**json.loads(sys.argv[2])), sys.argv[3:]
    os.sched_setaffinity(0, {settings.core})
    if what == "node":
        return node(settings, arguments)
    if what == "trainer":
        trainer(settings, Path(arguments[1]))
    elif what == "plain":
        plain(settings, Path(arguments[0]), Path(arguments[1]), int(arguments[2]))
    else:
        move(int(arguments[0]), float(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
