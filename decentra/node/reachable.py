"""Whether others can dial this node, and what it tells them accordingly: its record, its directory, its join string."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Sequence

from decentra.config import parse_link
from decentra.directory.base import Directory
from decentra.errors import DecentraError, PeerError
from decentra.ledger.state import State
from decentra.node.doorway import door_for_others
from decentra.node.node import Node
from decentra.node.wiring import Door
from decentra.rounds import ports
from decentra.rounds.member import Member
from decentra.rounds.reachability import prove
from decentra.rounds.records import DOMAIN_RECORD
from decentra.types import PeerId
from decentra.wire.v1 import rounds_pb2, swarm_pb2

AGAIN_S = 600.0
UNPROVED_AGAIN_S = 60.0
"""Until somebody could be asked."""


def rates(node: Node) -> tuple[int, int]:
    """Bytes a second up and down, as configured; 0: not known."""
    rate, _ = parse_link(node.start.config.node.link)
    known = 0 if rate == float("inf") else int(rate)
    return known, known


def endpoint(node: Node) -> str:
    """Where this node would be dialled."""
    config = node.start.config.node
    return f"{config.announce or config.listen}:{node.transport.port}"


def record_of(node: Node, dialable: bool | None = None) -> bytes:
    """This node's next signed directory record; `dialable` stands in for what is known of it."""
    up, down = rates(node)
    node.sequence = max(node.sequence + 1, int(time.time()))
    record = swarm_pb2.Record(
        run_id=node.door.run_id,
        peer=node.credentials.signer.peer,
        sequence=node.sequence,
        endpoints=[endpoint(node)] if (node.dialable if dialable is None else dialable) else [],
        up_bytes_per_s=up,
        down_bytes_per_s=down,
        server_certificate=node.credentials.server_certificate(node.door),
    )
    return node.credentials.signer.sign(DOMAIN_RECORD, record.SerializeToString())


async def find_directory(node: Node) -> Directory:
    """The directory that fits: one that cannot be dialled serves nobody in it. Raises SetupError."""
    wiring, config = node.wiring, node.start.config.node
    return await wiring.directory(node.door, config, node.transport, node.credentials.verifier, node.sockets, node.note, node.dialable)


# -- finding out --------------------------------------------------------------------------------------------------------


async def settle(node: Node, peers: Sequence[PeerId]) -> None:
    """Where it is to be proved: have peers dial this node back, and go by what they find."""
    if node.start.config.node.reachable != "auto" or not peers:
        return
    verdict = await prove(node.ports, node.door.run_id, record_of(node, dialable=True), peers)
    if verdict.dialable is None:
        return
    node.proved = True
    if verdict.dialable == node.dialable:
        return
    node.dialable = node.transport.dialable = verdict.dialable
    if verdict.dialable:
        node.note(f"others can dial this node at {endpoint(node)} now")
    else:
        course = "it takes part over connections that it opens itself, and owns no part"
        node.note(f"others cannot dial this node ({verdict.why}); {course}; to change that {_remedy(node)}")
        await _become_client(node)
    await _tell(node, peers)


def _remedy(node: Node) -> str:
    listen, announce = node.start.config.node.listen, node.start.config.node.announce
    if not announce and (listen.startswith("127.") or listen in ("::1", "localhost")):
        return f"give --listen with an address that others reach: {listen} is this machine's alone"
    return f"open the port of {endpoint(node)}, or give --announce with the address by which others reach this machine"


async def _become_client(node: Node) -> None:
    """A DHT that asks a node which cannot be dialled waits in vain: be its client only."""
    former = node.ports.directory
    try:
        node.ports.directory = await find_directory(node)
    except DecentraError as error:
        node.note(f"the directory stays as it was: {error}")
        return
    for signed in (await former.records()).values():
        node.ports.directory.learn(signed)
    await former.close()


async def _tell(node: Node, peers: Sequence[PeerId]) -> None:
    """Announce this node as it now is, to the directory and to peers, who may have dialled it in vain."""
    record = record_of(node)
    await node.ports.directory.announce(record)
    request = rounds_pb2.Request(records=rounds_pb2.Records(records=[record]))

    async def tell(peer: PeerId) -> None:
        with contextlib.suppress(PeerError):
            await ports.call(node.ports.transport, node.door.run_id, peer, request)

    await asyncio.gather(*(tell(peer) for peer in peers))


def as_before(node: Node, state: State) -> None:
    """Where nobody could be asked, a node that comes back is what it was when it was admitted."""
    former = state.member(node.ports.signer.peer)
    if node.start.config.node.reachable == "auto" and not node.proved and former is not None and not former.dialable:
        node.dialable = node.transport.dialable = False


async def keep_settled(node: Node, member: Member) -> None:
    """Look again, rarely, as a member; until cancelled."""
    while True:
        await asyncio.sleep(AGAIN_S if node.proved else UNPROVED_AGAIN_S)
        peers = [m.peer for m in member.state.members if m.dialable and m.peer != member.peer]
        node.ports.rng.shuffle(peers)
        try:
            await settle(node, peers)
        except DecentraError as error:
            node.note(f"whether others can dial this node could not be settled: {error}")
        member.me = dataclasses.replace(member.me, dialable=node.dialable)


# -- letting others in --------------------------------------------------------------------------------------------------


async def door(node: Node) -> Door:
    """The way into the run from here: through this node, or, where it cannot be dialled, through those it knows."""
    addresses = node.ports.directory.addresses()
    if node.dialable:
        return door_for_others(node.door, addresses, ((endpoint(node), node.ports.signer.peer),))
    entrances = []
    for signed in (await node.ports.directory.records()).values():
        with contextlib.suppress(ValueError):
            _, payload = node.ports.verifier.open(DOMAIN_RECORD, signed)
            record = swarm_pb2.Record.FromString(payload)
            entrances += [(place, record.peer) for place in record.endpoints[:1]]
    return door_for_others(node.door, addresses, tuple(entrances))
