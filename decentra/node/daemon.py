"""A node: found a swarm, join one, or come back to one; then take part until the run ends or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from decentra.config import config_hash
from decentra.errors import DecentraError, PeerError, SetupError
from decentra.ledger.chain import digest
from decentra.ledger.store import Snapshot, Store
from decentra.node import entering, reachable
from decentra.node.interrupts import Interrupts
from decentra.node.node import Node, Note, Start
from decentra.node.shared_state import SharedState
from decentra.node.sockets import socket_folder
from decentra.node.supervisor import Supervisor
from decentra.node.trainer_port import ProcessTrainer
from decentra.node.wiring import LockedFiles, Wiring
from decentra.node.wishing import tell_plan
from decentra.observe.summary import summarize
from decentra.rounds import catchup, life
from decentra.rounds.founding import empty_tensors
from decentra.rounds.member import Member, announced
from decentra.rounds.ports import Ports
from decentra.rounds.reachability import DialBack
from decentra.rounds.serve import Server
from decentra.rounds.status import status_of
from decentra.wire.v1 import swarm_pb2

LEAVE_S = 3.0
"""The whole of a goodbye; with what must be closed after it a node is gone 5 s after Ctrl-C."""
CLOSE_S = 1.5
"""For leaving the DHT in order; its record there expires by itself."""


async def run_node(start: Start, wiring: Wiring, note: Note, announce_join: Callable[[str], None]) -> dict[str, Any]:
    """The whole life of a node; its summary. Raises DecentraError with one sentence for people."""
    node = Node(start, wiring, note, announce_join)
    life_of_node = asyncio.ensure_future(_run(node))
    with Interrupts(life_of_node.cancel) as node.interrupts:
        try:
            return await life_of_node
        except asyncio.CancelledError:
            if not node.interrupts.seen:
                raise
            raise SetupError("stopped before this node took part in the run") from None
        except BaseExceptionGroup as group:
            fault = first_fault(group)
            raise (group if fault is None else fault) from None


def first_fault(group: BaseExceptionGroup[BaseException]) -> DecentraError | OSError | None:
    """What a person should read of errors that tasks raised together; None where one of them is our own mistake."""
    found: DecentraError | OSError | None = None
    for error in group.exceptions:
        fault = first_fault(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(fault, DecentraError | OSError):
            return None
        found = found or fault
    return found


async def _run(node: Node) -> dict[str, Any]:
    start = node.start
    await node.wiring.ready(start.config.node, start.bootstrap)
    made = [folder for folder in (start.state, start.state.parent) if not folder.exists()]
    files = node.wiring.disk(start.state)
    try:
        return await _with_files(node, files)
    finally:
        files.close()
        # Without a manifest nothing in it is worth coming back to.
        if start.state in made and not (start.state / "manifest.bin").exists():
            shutil.rmtree(start.state, ignore_errors=True)
            for folder in made[1:]:
                with contextlib.suppress(OSError):
                    folder.rmdir()


async def _with_files(node: Node, files: LockedFiles) -> dict[str, Any]:
    start = node.start
    founding = start.found and (files.read("door.json") is None or files.read("manifest.bin") is None)
    with entering.naming_the_state(start.state):
        node.store = Store.open(files, lambda: secrets.randbits(62))
        node.credentials = node.wiring.credentials(start.state)
        if not founding:
            entering.know_door(node, files)
    files.write("peer.txt", node.credentials.signer.peer.encode())
    founded = await entering.found_run(node, files) if founding else None
    node.transport = await node.wiring.transport(start.state, node.door, start.config.node)
    try:
        with socket_folder(files) as node.sockets:
            return await _with_transport(node, founded)
    finally:
        await node.transport.close()


async def _with_transport(node: Node, founded: entering.Founded | None) -> dict[str, Any]:
    config = node.start.config.node
    node.dialable = config.reachable != "no"
    directory = await reachable.find_directory(node)
    node.ports = Ports(
        transport=node.transport,
        directory=directory,
        store=node.store,
        signer=node.credentials.signer,
        verifier=node.credentials.verifier,
        trainer=None,  # type: ignore[arg-type]
        run_blocking=asyncio.to_thread,  # type: ignore[arg-type]
        rng=random.Random(node.store.incarnation),
        note=node.note,
        keep_snapshots=config.keep_snapshots,
        dial_back=DialBack(node.wiring.dial_back),
    )
    try:
        donors = [] if founded is not None else await entering.greet(node, reachable.record_of(node))
        await reachable.settle(node, donors)
        await node.ports.directory.announce(reachable.record_of(node))
        return await _take_part(node, founded, donors)
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(node.ports.directory.close(), CLOSE_S)


async def _take_part(node: Node, founded: entering.Founded | None, donors: list[str]) -> dict[str, Any]:
    run = node.run
    shared = SharedState.create(run.layout.num_elements)
    tensors = empty_tensors(run.layout, shared.anchor)
    if founded is None:
        with _fetching(run.run_id):
            await catchup.fetch_files(node.ports, run, donors)
    trainer = ProcessTrainer(run, node.start.config.node, shared, node.start.state / "files", node.sockets)
    node.ports.trainer = trainer
    await trainer.start()
    # It takes seconds to come up: let it, while the snapshot comes.
    supervisor = Supervisor(trainer, node.start.config.node.trainer_threads, node.start.state / "trainer.log", node.note)
    supervisor.start()
    try:
        if founded is None:
            with _fetching(run.run_id):
                reached = await entering.reach(node, tensors, donors)
        else:
            tensors.anchor.copy_(founded[0].anchor)
            reached = founded[1]
        reachable.as_before(node, reached.state)
        me = announced(node.ports.signer.peer, node.store.incarnation, node.dialable, run, reachable.rates(node))
        member = Member(run, node.ports, reached.state, reached.state_hash, tensors, me)
        return await _be_member(node, member, donors)
    finally:
        await asyncio.gather(trainer.close(), supervisor.close())


@contextlib.contextmanager
def _fetching(run_id: bytes) -> Iterator[None]:
    try:
        yield
    except PeerError as error:
        raise SetupError(f"cannot fetch the state of run {run_id.hex()[:8]}: {error}; try again, its members may be busy") from error


async def _be_member(node: Node, member: Member, donors: list[str]) -> dict[str, Any]:
    if donors:
        member.behind = donors[0]
    server = Server()
    server.member = member
    node.transport.handler = server
    await _tell_door(node)
    began = time.perf_counter()
    await _live_until_signal(node, member)
    if node.interrupts.seen and not member.in_view() and not member.history:
        raise SetupError("stopped before this node took part in the run")
    return _summary(node, member, time.perf_counter() - began)


async def _live_until_signal(node: Node, member: Member) -> None:
    living = asyncio.ensure_future(life.live(member))
    aside = [asyncio.ensure_future(each) for each in (reachable.keep_settled(node, member), tell_plan(node, member))]

    def leave() -> None:
        node.note("leaving: asking for an entry without this node")
        member.leave()
        asyncio.get_running_loop().call_later(LEAVE_S, living.cancel)

    node.interrupts.first, node.interrupts.cancel = leave, living.cancel
    try:
        await living
    except asyncio.CancelledError:
        if not member.leaving:
            raise
        node.note(f"left without a goodbye: {member.waiting_for} took over {LEAVE_S:.0f} s")
    finally:
        for task in aside:
            task.cancel()
        await asyncio.wait(aside)
    if member.last_certified:
        body = swarm_pb2.CertifiedEntry.FromString(member.last_certified).entry
        entry = swarm_pb2.Entry.FromString(body)
        if entry.r + 1 == member.state.r:
            snapshot = Snapshot(member.state.r, member.state.header(), entry.state_hash, digest("decentra/entry", body))
            await asyncio.to_thread(member.keep_snapshot, snapshot)


# -- telling others -----------------------------------------------------------------------------------------------------


async def _tell_door(node: Node) -> None:
    """Print the join string: the entrances that lead in from here, and the DHT's addresses."""
    string = node.wiring.encode_door(await reachable.door(node))
    node.store.files.write("join.txt", string.encode())
    node.announce_join(string)


def _summary(node: Node, member: Member, wall_s: float) -> dict[str, Any]:
    run = node.run
    status = status_of(member)
    summary = summarize(
        [status],
        seed=run.config.seed,
        config_hash=config_hash(run.config),
        loss_last=None,
        joined_late=[],
        killed=[],
        contribution_bytes=member.run.contribution_bytes(),
        wall_s=wall_s,
    )
    node.store.files.write("status.json", json.dumps(status).encode())
    node.store.files.write("summary.json", json.dumps(summary, indent=1).encode())
    return summary
