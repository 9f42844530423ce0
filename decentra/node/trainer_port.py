"""The trainer as the daemon sees it: a small gRPC service on a Unix socket, behind rounds.ports.TrainerPort."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import torch

from decentra.config import NodeConfig, inner_bytes, run_bytes
from decentra.node.shared_state import SharedState, offer_descriptor
from decentra.rounds.ports import ReplicaLost, Run
from decentra.types import SlotPlan, SlotResult
from decentra.wire.v1 import swarm_pb2, trainer_pb2

SERVICE = "decentra.wire.v1.Trainer"
GRPC_SOCKET = "trainer.sock"
DESCRIPTOR_SOCKET = "memory.sock"
STOP_GRACE_S = 1.0
LOST = "the trainer died, and with it what no entry has counted"


class ProcessTrainer:
    """One trainer process's port: sockets in `folder`, which the caller removes. Calls of process and member meet on the daemon's loop."""

    def __init__(self, run: Run, node: NodeConfig, shared: SharedState, data_dir: Path, folder: Path) -> None:
        self.local: torch.Tensor = shared.local
        self.folder = folder
        self.loss = float("nan")
        self.heldout: float | None = None
        self._run, self._node, self._shared, self._data_dir = run, node, shared, data_dir
        self._plan: SlotPlan | None = None
        self._handed, self._has_replica = False, False
        self._final: asyncio.Future[SlotPlan] | None = None
        self._result: asyncio.Future[SlotResult] | None = None
        self._changed = asyncio.Event()
        self._progress = (0, 0)
        self._stopping = False
        self._server: Any = None
        self._offering: asyncio.Task[None] | None = None
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    @property
    def stopping(self) -> bool:
        """Whether the trainer was told to end."""
        return self._stopping

    async def start(self) -> None:
        """Open both sockets. Raises OSError."""
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        self._listening.bind(str(self.folder / DESCRIPTOR_SOCKET))
        self._listening.listen()
        self._listening.setblocking(False)
        self._server = grpc.aio.server()
        unary = grpc.unary_unary_rpc_method_handler
        handlers = {
            "Attach": unary(self._attach, trainer_pb2.AttachRequest.FromString, trainer_pb2.AttachReply.SerializeToString),
            "NextSlot": unary(self._next_slot, trainer_pb2.NextSlotRequest.FromString, trainer_pb2.Slot.SerializeToString),
            "FinalSlot": unary(self._final_slot, trainer_pb2.FinalSlotRequest.FromString, trainer_pb2.Slot.SerializeToString),
            "Progress": unary(self._on_progress, trainer_pb2.ProgressRequest.FromString, trainer_pb2.ProgressReply.SerializeToString),
            "Contribute": unary(self._contribute, trainer_pb2.SlotDone.FromString, trainer_pb2.ContributeReply.SerializeToString),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._server.add_insecure_port(f"unix:{self.folder / GRPC_SOCKET}")
        await self._server.start()

    async def close(self) -> None:
        """Tell the trainer to end. A socket without its file tells it that this was an end in order."""
        self._stopping = True
        self._wake()
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        if self._offering is not None:
            self._offering.cancel()
            await asyncio.wait({self._offering})
        (self.folder / DESCRIPTOR_SOCKET).unlink(missing_ok=True)
        self._listening.close()

    # -- the member's side ------------------------------------------------------------------------------------------

    async def train(self, plan: SlotPlan, final: Awaitable[SlotPlan] | None = None) -> SlotResult:
        """See rounds.ports.TrainerPort."""
        if not (plan.fresh or self._has_replica):
            raise ReplicaLost(LOST)
        self._plan, self._handed, self._progress = plan, False, (plan.first_step, plan.num_steps)
        self._result = asyncio.get_running_loop().create_future()
        if final is not None:
            self._final = asyncio.ensure_future(final)
            self._final.add_done_callback(self._final_is_known)
        self._wake()
        try:
            return await self._result
        finally:
            if self._final is not None:
                self._final.cancel()
            self._plan, self._final, self._result, self._progress = None, None, None, (0, 0)
            self._wake()

    def _final_is_known(self, final: asyncio.Future[SlotPlan]) -> None:
        if final is self._final and not final.cancelled() and self._result is not None and not self._result.done():
            if (error := final.exception()) is not None:
                self._result.set_exception(error)
            self._wake()

    def progress(self) -> tuple[int, int]:
        """See rounds.ports.TrainerPort."""
        return self._progress

    def trainer_lost(self) -> None:
        """The process has died: its slot is handed out again to the next one, unless it went on from what died with it."""
        self._has_replica = False
        if self._plan is not None and not self._plan.fresh:
            if self._result is not None and not self._result.done():
                self._result.set_exception(ReplicaLost(LOST))
        elif self._plan is not None:
            self._handed, self._progress = False, (self._plan.first_step, self._plan.num_steps)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- the process's side -----------------------------------------------------------------------------------------

    async def _attach(self, request: trainer_pb2.AttachRequest, context: Any) -> trainer_pb2.AttachReply:
        if self._offering is not None:
            self._offering.cancel()
        self._offering = asyncio.ensure_future(offer_descriptor(self._listening, self._shared.descriptor))
        return trainer_pb2.AttachReply(
            run_config=run_bytes(self._run.config),
            layout=[swarm_pb2.Tensor(name=s.name, shape=s.shape, offset=s.offset) for s in self._run.layout.slots],
            num_elements=self._shared.num_elements,
            data_dir=str(self._data_dir),
            num_threads=self._node.trainer_threads,
            micro_batch=self._node.micro_batch,
            device=self._node.device,
            on_bad_step=self._node.on_bad_step,
        )

    async def _next_slot(self, request: trainer_pb2.NextSlotRequest, context: Any) -> trainer_pb2.Slot:
        while self._plan is None or self._handed:
            if self._stopping:
                return trainer_pb2.Slot(stop=True)
            await self._changed.wait()
        self._handed, self._has_replica = True, self._has_replica or self._plan.fresh
        return _slot(self._plan)

    def _is_at_work(self, sync: int) -> bool:
        """Whether the process's slot is the one that is wanted: one abandoned for another of the same sync is not, which it has yet to
        ask for."""
        return self._plan is not None and self._handed and self._plan.sync == sync and not self._stopping

    async def _final_slot(self, request: trainer_pb2.FinalSlotRequest, context: Any) -> trainer_pb2.Slot:
        while True:
            final = self._final
            if not self._is_at_work(request.sync) or final is None:
                return trainer_pb2.Slot(stop=True)
            if final.done():
                return _slot(final.result())
            await self._changed.wait()

    async def _on_progress(self, request: trainer_pb2.ProgressRequest, context: Any) -> trainer_pb2.ProgressReply:
        wanted = self._is_at_work(request.sync)
        if wanted and self._plan is not None:
            final = self._final
            plan = final.result() if final is not None and final.done() and final.exception() is None else self._plan
            self._progress = (plan.first_step + request.steps_done, plan.num_steps)
            self.loss = request.loss
        return trainer_pb2.ProgressReply(go_on=wanted)

    async def _contribute(self, request: trainer_pb2.SlotDone, context: Any) -> trainer_pb2.ContributeReply:
        if self._is_at_work(request.sync) and self._result is not None and not self._result.done():
            heldout = request.heldout_loss if request.HasField("heldout_loss") else None
            self._result.set_result(
                SlotResult(
                    sync=request.sync,
                    num_steps=request.num_steps,
                    num_samples=request.num_samples,
                    num_tokens=request.num_tokens,
                    loss=request.loss,
                    compute_s=request.compute_s,
                    heldout_loss=heldout,
                    wait_s=request.wait_s,
                    fault=request.fault,
                    leave=request.leave,
                )
            )
        return trainer_pb2.ContributeReply()


def _slot(plan: SlotPlan) -> trainer_pb2.Slot:
    return trainer_pb2.Slot(
        sync=plan.sync,
        lease=[swarm_pb2.Interval(start=start, stop=stop) for start, stop in plan.lease],
        num_steps=plan.num_steps,
        tokens_committed=plan.tokens_committed,
        tokens_last_sync=plan.tokens_last_sync,
        evaluate=plan.evaluate,
        fresh=plan.fresh,
        overlap_steps=plan.overlap_steps,
        alpha=plan.alpha,
        provisional=plan.provisional,
        first_step=plan.first_step,
        budget_s=plan.budget_s,
        began_s=plan.began_s,
        ends_s=plan.ends_s,
        step_s=plan.step_s,
        inner=b"" if plan.inner is None else inner_bytes(plan.inner),
    )
