"""The trainer process: the one training loop, its outer plug a daemon behind a Unix socket."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import grpc
import torch

from decentra.config import RunConfig, inner_from_bytes, run_from_bytes
from decentra.node.shared_state import SharedState, take_descriptor
from decentra.node.trainer_port import DESCRIPTOR_SOCKET, GRPC_SOCKET, SERVICE
from decentra.outer.fragments import fragments, parameters
from decentra.outer.layout import Layout, Slot
from decentra.train.loop import SlotAbandoned, train
from decentra.train.step import Views
from decentra.types import SlotPlan, SlotResult
from decentra.wire.v1 import trainer_pb2

Outfit = Callable[[RunConfig, Path, int, str, str], tuple[Any, Any, Any]]
"""(run config, data folder, micro batch, device, on_bad_step) -> (replica, source, heldout); build gives it."""

GONE_WITHIN_S = 1.0
NICE = 5
"""Trainers yield to daemons: control answers before the next step is taken."""


class DaemonPlug:
    """train.loop.OuterPlug over the daemon's socket."""

    def __init__(self, channel: grpc.Channel, anchor: Views, local: Views, fragments: Sequence[Collection[str]]) -> None:
        self.anchor, self.local, self.fragments = anchor, local, fragments
        self._sync = 0
        self._told: grpc.Future[trainer_pb2.ProgressReply] | None = None
        call = channel.unary_unary
        self._next = call(f"/{SERVICE}/NextSlot", trainer_pb2.NextSlotRequest.SerializeToString, trainer_pb2.Slot.FromString)
        self._final = call(f"/{SERVICE}/FinalSlot", trainer_pb2.FinalSlotRequest.SerializeToString, trainer_pb2.Slot.FromString)
        self._progress = call(f"/{SERVICE}/Progress", trainer_pb2.ProgressRequest.SerializeToString, trainer_pb2.ProgressReply.FromString)
        self._contribute = call(f"/{SERVICE}/Contribute", trainer_pb2.SlotDone.SerializeToString, trainer_pb2.ContributeReply.FromString)

    def next_slot(self) -> SlotPlan | None:
        """See OuterPlug."""
        self._last_answer()
        slot = self._next(trainer_pb2.NextSlotRequest())
        self._sync = slot.sync
        return None if slot.stop else _plan(slot)

    def final(self, plan: SlotPlan) -> SlotPlan:
        """See OuterPlug."""
        self._last_answer()
        slot = self._final(trainer_pb2.FinalSlotRequest(sync=plan.sync))
        if slot.stop:
            raise SlotAbandoned(f"sync {plan.sync} is not wanted any more")
        return _plan(slot)

    def progress(self, steps_done: int, loss: float, tokens: int) -> bool:
        """See OuterPlug. The answer is the one to the step before: the daemon gives it while a step is taken."""
        go_on = self._last_answer()
        request = trainer_pb2.ProgressRequest(sync=self._sync, steps_done=steps_done, loss=loss, num_tokens=tokens)
        self._told = self._progress.future(request)
        return go_on

    def _last_answer(self) -> bool:
        told, self._told = self._told, None
        return told is None or bool(told.result().go_on)

    def contribute(self, result: SlotResult) -> None:
        """See OuterPlug."""
        self._last_answer()
        done = trainer_pb2.SlotDone(
            sync=result.sync,
            num_steps=result.num_steps,
            num_samples=result.num_samples,
            num_tokens=result.num_tokens,
            loss=result.loss,
            compute_s=result.compute_s,
            wait_s=result.wait_s,
            fault=result.fault,
            leave=result.leave,
        )
        if result.heldout_loss is not None:
            done.heldout_loss = result.heldout_loss
        self._contribute(done)


def _plan(slot: trainer_pb2.Slot) -> SlotPlan:
    return SlotPlan(
        sync=slot.sync,
        lease=tuple((i.start, i.stop) for i in slot.lease),
        num_steps=slot.num_steps,
        tokens_committed=slot.tokens_committed,
        tokens_last_sync=slot.tokens_last_sync,
        evaluate=slot.evaluate,
        fresh=slot.fresh,
        overlap_steps=slot.overlap_steps,
        alpha=slot.alpha,
        provisional=slot.provisional,
        first_step=slot.first_step,
        budget_s=slot.budget_s,
        began_s=slot.began_s,
        ends_s=slot.ends_s,
        step_s=slot.step_s,
        inner=inner_from_bytes(slot.inner) if slot.inner else None,
    )


def run_trainer(folder: Path, outfit: Outfit) -> None:
    """Train for the daemon behind `folder` until it says stop or is gone; if it died, its sockets are removed."""
    os.nice(NICE)
    with grpc.insecure_channel(f"unix:{folder / GRPC_SOCKET}") as channel:
        attach = channel.unary_unary(f"/{SERVICE}/Attach", trainer_pb2.AttachRequest.SerializeToString, trainer_pb2.AttachReply.FromString)
        try:
            told = attach(trainer_pb2.AttachRequest(rank=0, pid=os.getpid()))
            shared = SharedState(_descriptor(folder), told.num_elements)
            torch.set_num_threads(max(1, told.num_threads))
            run = run_from_bytes(told.run_config)
            replica, source, heldout = outfit(run, Path(told.data_dir), told.micro_batch, told.device, told.on_bad_step)
            layout = Layout(tuple(Slot(t.name, tuple(t.shape), t.offset) for t in told.layout))
            names = parameters(layout, fragments(layout, run.outer.fragments))
            train(replica, source, DaemonPlug(channel, layout.views(shared.anchor), layout.views(shared.local), names), heldout)
        except (grpc.RpcError, DaemonGoneError):
            if not _is_gone(folder):
                raise
            if (folder / DESCRIPTOR_SOCKET).exists():
                shutil.rmtree(folder, ignore_errors=True)


class DaemonGoneError(Exception):
    """Nobody is behind the sockets any more."""


def _descriptor(folder: Path) -> int:
    try:
        return take_descriptor(folder / DESCRIPTOR_SOCKET)
    except OSError as error:
        raise DaemonGoneError from error


def _is_gone(folder: Path) -> bool:
    """Whether the daemon is, and not just one request of ours refused: a process that dies closes one socket after another."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(str(folder / DESCRIPTOR_SOCKET))
        except OSError:
            return True
        time.sleep(0.05)
    return False
