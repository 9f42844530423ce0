"""A real trainer process behind its port: a slot, a death in the middle of one, the death of its daemon."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from decentra import build
from decentra.config import NodeConfig, RunConfig
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.ledger.files import MemoryFiles
from decentra.ledger.store import Store
from decentra.node.shared_state import SharedState
from decentra.node.supervisor import Supervisor
from decentra.node.trainer_port import ProcessTrainer
from decentra.outer.layout import Layout
from decentra.rounds.founding import Material, empty_tensors, found
from decentra.rounds.ports import ReplicaLost, Run
from decentra.sim.cluster import Corpus
from decentra.sim.compute import SimTrainer
from decentra.train.step import Replica
from decentra.types import SlotPlan, SlotResult

WITHIN_S = 60.0


def make_run(config: RunConfig, num_samples: int) -> tuple[Run, torch.Tensor]:
    """A run of this config, and its first anchor."""
    model = build.first_model(config)
    layout = Layout.of((name, tuple(p.shape)) for name, p in model.named_parameters())
    tensors = empty_tensors(layout)
    for name, view in layout.views(tensors.anchor).items():
        view.copy_(model.get_parameter(name).detach())
    store = Store.open(MemoryFiles(), lambda: 1)
    material = Material(config, layout, (), num_samples, b"", b"n" * 16)
    run, _ = found(material, tensors, store, IdentitySigner(Identity.create()), MemoVerifier(), build.machine)
    return run, tensors.anchor


class Pieces:
    """Port, supervisor and what they note, as a daemon puts them together."""

    def __init__(self, config: RunConfig, data_folder: Path, tmp_path: Path) -> None:
        corpus = Corpus.of(config, data_folder)
        self.run, anchor = make_run(config, corpus.source.shard.num_samples)
        self.shared = SharedState.create(self.run.layout.num_elements)
        self.shared.anchor.copy_(anchor)
        self.notes: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="decentra-"))
        self.port = ProcessTrainer(self.run, NodeConfig(), self.shared, data_folder, self.folder)
        self.supervisor = Supervisor(self.port, 1, tmp_path / "trainer.log", self.notes.append)

    async def close(self) -> None:
        await asyncio.gather(self.port.close(), self.supervisor.close())
        assert self.folder.exists(), "a trainer that was told to end removed what is its daemon's"
        shutil.rmtree(self.folder)


@pytest.fixture()
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, short enough for sockets; empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="dc-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


@pytest.fixture()
def pieces(small_run: RunConfig, data_folder: Path, tmp_path: Path, short_tmp: Path) -> Pieces:
    return Pieces(small_run, data_folder, tmp_path)


def plan(num_steps: int, sync: int = 0) -> SlotPlan:
    return SlotPlan(sync, ((0, num_steps * 4),), num_steps, 0, 640, True)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def in_process(pieces: Pieces, config: RunConfig, data_folder: Path) -> tuple[torch.Tensor, float]:
    """Where the same slot leads without a process, and its anchor's held-out loss."""
    corpus = Corpus.of(config, data_folder)
    replica = Replica(build.first_model(config), config.inner)
    trainer = SimTrainer(replica, corpus.source, corpus.heldout, pieces.run.layout, pieces.shared.anchor, 0.0, 1)
    result = asyncio.run(trainer.train(plan(5)))
    assert result.heldout_loss is not None
    return trainer.local, result.heldout_loss


def test_one_slot_in_a_process_is_the_slot_in_this_one_bit_for_bit(pieces: Pieces, small_run: RunConfig, data_folder: Path) -> None:
    async def main() -> None:
        await pieces.port.start()
        pieces.supervisor.start()
        assert pieces.port.progress() == (0, 0)
        result = await asyncio.wait_for(pieces.port.train(plan(5)), WITHIN_S)
        assert (result.sync, result.num_steps, result.num_samples, result.num_tokens) == (0, 5, 20, 640)
        assert pieces.port.progress() == (0, 0) and pieces.notes == []
        local, heldout = await asyncio.to_thread(in_process, pieces, small_run, data_folder)
        assert torch.equal(pieces.port.local.view(torch.int32), local.view(torch.int32))
        assert result.heldout_loss == heldout
        start = time.monotonic()
        await pieces.close()
        assert time.monotonic() - start < 3.0

    asyncio.run(main())
    assert pieces.supervisor.pid is None


def test_a_slot_by_time_ends_with_its_time_and_at_the_latest_after_its_first_step(pieces: Pieces) -> None:
    async def main() -> None:
        await pieces.port.start()
        pieces.supervisor.start()
        await asyncio.wait_for(pieces.port.train(plan(5)), WITHIN_S)
        for sync, allowed_s in ((1, 1.0), (2, -5.0)):
            now_s = asyncio.get_running_loop().time()
            timed = dataclasses.replace(plan(10_000, sync), evaluate=False, budget_s=1.0, began_s=now_s, ends_s=now_s + allowed_s)
            result = await asyncio.wait_for(pieces.port.train(timed), WITHIN_S)
            took_s = asyncio.get_running_loop().time() - now_s
            if allowed_s < 0.0:
                assert result.num_steps == 1
            else:
                assert 1 < result.num_steps < 10_000 and 0.5 < took_s < WITHIN_S / 2
        await pieces.close()

    asyncio.run(main())


def test_a_trainer_that_dies_is_replaced_and_its_slot_handed_out_again(pieces: Pieces) -> None:
    async def main() -> None:
        await pieces.port.start()
        pieces.supervisor.start()
        training = asyncio.ensure_future(pieces.port.train(plan(2000)))
        await until(lambda: pieces.port.progress()[0] >= 2)
        first = pieces.supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: pieces.port.progress() == (0, 2000))
        await until(lambda: pieces.port.progress()[0] >= 2)
        assert pieces.supervisor.pid not in (None, first)
        assert not training.done()
        training.cancel()
        await asyncio.wait({training})
        result = await asyncio.wait_for(pieces.port.train(plan(5, sync=1)), WITHIN_S)
        assert (result.sync, result.num_steps) == (1, 5)
        await pieces.close()

    asyncio.run(main())
    assert len(pieces.notes) == 1 and "died with code -9" in pieces.notes[0] and "restart 1 of 5" in pieces.notes[0]


@pytest.mark.parametrize(("overlap", "alpha", "eager"), [(2, 0.5, False), (5, 1.0, True)])
def test_a_slot_that_begins_ahead_waits_in_the_process_for_its_final_plan(
    pieces: Pieces, small_run: RunConfig, data_folder: Path, overlap: int, alpha: float, eager: bool
) -> None:
    ahead = dataclasses.replace(
        plan(5, sync=1), lease=((20, 40),), evaluate=False, fresh=False, overlap_steps=overlap, provisional=eager
    )  # fmt: skip
    final = dataclasses.replace(ahead, overlap_steps=0, alpha=alpha)

    async def two_slots(port: ProcessTrainer | SimTrainer, known: asyncio.Future[SlotPlan]) -> SlotResult:
        await port.train(plan(5))
        port.local.add_(pieces.shared.anchor).mul_(0.5)
        return await port.train(ahead, known)

    async def alone() -> torch.Tensor:
        corpus = Corpus.of(small_run, data_folder)
        replica = Replica(build.first_model(small_run), small_run.inner)
        trainer = SimTrainer(replica, corpus.source, corpus.heldout, pieces.run.layout, pieces.shared.anchor, 0.0, 1)
        known: asyncio.Future[SlotPlan] = asyncio.get_running_loop().create_future()
        known.set_result(final)
        await two_slots(trainer, known)
        return trainer.local

    async def main() -> None:
        await pieces.port.start()
        pieces.supervisor.start()
        known: asyncio.Future[SlotPlan] = asyncio.get_running_loop().create_future()
        training = asyncio.ensure_future(two_slots(pieces.port, known))
        await until(lambda: pieces.port.progress()[0] == overlap or training.done())
        await asyncio.sleep(0.3)
        assert pieces.port.progress() == (overlap, 5), "it goes on without its final plan"
        known.set_result(final)
        result = await asyncio.wait_for(training, WITHIN_S)
        assert (result.sync, result.num_steps, result.num_samples) == (1, 5, 20) and 0.2 < result.wait_s < WITHIN_S
        wanted = await asyncio.to_thread(asyncio.run, alone())
        assert torch.equal(pieces.port.local.view(torch.int32), wanted.view(torch.int32))
        await pieces.close()

    asyncio.run(main())


def test_a_slot_that_was_abandoned_is_not_taken_for_the_next_one_of_the_same_sync(pieces: Pieces) -> None:
    many = dataclasses.replace(plan(400, sync=1), evaluate=False, fresh=False, overlap_steps=2)

    async def main() -> None:
        await pieces.port.start()
        pieces.supervisor.start()
        await pieces.port.train(plan(2))
        known: asyncio.Future[SlotPlan] = asyncio.get_running_loop().create_future()
        known.set_result(dataclasses.replace(many, overlap_steps=0))
        ahead = asyncio.ensure_future(pieces.port.train(many, known))
        await until(lambda: pieces.port.progress()[0] > 2)
        ahead.cancel()
        await asyncio.wait({ahead})
        result = await asyncio.wait_for(pieces.port.train(plan(5, sync=1)), WITHIN_S)
        assert (result.num_steps, result.num_samples) == (5, 20)
        await pieces.close()

    asyncio.run(main())


def test_a_trainer_that_dies_takes_a_slot_that_went_on_from_its_replica_along(pieces: Pieces) -> None:
    async def main() -> None:
        await pieces.port.start()
        pieces.supervisor.start()
        with pytest.raises(ReplicaLost):
            await pieces.port.train(dataclasses.replace(plan(5), fresh=False))
        await asyncio.wait_for(pieces.port.train(plan(2)), WITHIN_S)
        ahead = dataclasses.replace(plan(5, sync=1), fresh=False, overlap_steps=2)
        training = asyncio.ensure_future(pieces.port.train(ahead, asyncio.get_running_loop().create_future()))
        await until(lambda: pieces.port.progress()[0] == 2)
        assert pieces.supervisor.pid is not None
        os.kill(pieces.supervisor.pid, signal.SIGKILL)
        with pytest.raises(ReplicaLost, match="the trainer died"):
            await asyncio.wait_for(training, WITHIN_S)
        result = await asyncio.wait_for(pieces.port.train(plan(5, sync=2)), WITHIN_S)
        assert (result.sync, result.num_steps) == (2, 5)
        await pieces.close()

    asyncio.run(main())


def test_a_trainer_that_is_still_starting_is_ended_too(pieces: Pieces) -> None:
    async def main() -> None:
        await pieces.port.start()
        pieces.supervisor.start()
        await until(lambda: pieces.supervisor.pid is not None)
        start = time.monotonic()
        await pieces.close()
        assert time.monotonic() - start < 3.0

    asyncio.run(main())


DAEMON = """
import asyncio, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import SMALL_RUN
from test_trainer_process import Pieces, plan

async def main():
    pieces = Pieces(SMALL_RUN, Path(sys.argv[2]), Path(sys.argv[3]))
    await pieces.port.start()
    pieces.supervisor.start()
    training = asyncio.ensure_future(pieces.port.train(plan(2000)))
    while pieces.port.progress()[0] < 2:
        await asyncio.sleep(0.05)
    print(pieces.supervisor.pid, flush=True)
    await training

asyncio.run(main())
"""


def test_a_daemon_that_dies_takes_the_trainer_and_its_folder_along(data_folder: Path, tmp_path: Path, short_tmp: Path) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", DAEMON, str(here), str(data_folder), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        assert Path(f"/proc/{pid}").exists() and len(list(short_tmp.iterdir())) == 1
        daemon.kill()
    deadline = time.monotonic() + 10.0
    with contextlib.suppress(FileNotFoundError):
        while "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline, "the trainer outlives its daemon"
            time.sleep(0.05)
