"""From config to objects: the only file that names concrete classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decentra.codec.base import Codec
from decentra.codec.cast import Fp32
from decentra.codec.int8 import Int8
from decentra.config import NodeConfig, RunConfig, parse_link
from decentra.errors import DecentraError, SetupError
from decentra.ledger.apply import Machine
from decentra.node.wiring import Credentials, Door, NodeTransport, Text, Wiring
from decentra.outer.fragments import fragments
from decentra.outer.layout import Layout
from decentra.outer.nesterov import Nesterov
from decentra.seams import Verifier
from decentra.types import PeerId

DIAL_TIMEOUT_S = 5.0


def codecs() -> dict[str, Codec]:
    """Every codec by the name that travels."""
    return {codec.name: codec for codec in (Fp32(), Int8())}


def machine(config: RunConfig, layout: Layout) -> Machine:
    """How this run applies entries."""
    outer = config.outer
    return Machine(
        fragments=fragments(layout.num_chunks),
        codecs=codecs(),
        outer=Nesterov(outer.lr, outer.momentum, outer.nesterov),
        up=config.codec.up,
        down=config.codec.down,
        start_members=config.start_members,
    )


# -- training -----------------------------------------------------------------------------------------------------------


def first_model(config: RunConfig) -> Any:
    """The Llama of a run with its first weights."""
    from decentra.model.init import seeded

    return seeded(config.model, config.data.vocab_size, config.seed)


def outfit(config: RunConfig, data_dir: Path, micro_batch: int) -> tuple[Any, Any, Any]:
    """(replica, source, heldout) of a trainer, over shards that are in place. Raises StateError."""
    from decentra.data.shards import Shard
    from decentra.data.stream import Source
    from decentra.train.evaluate import Heldout
    from decentra.train.step import Replica

    train, heldout = (Shard.open(data_dir / name, config.data.context, config.data.vocab_size) for name in ("train.bin", "heldout.bin"))
    replica = Replica(first_model(config), config.inner, micro_batch)
    return replica, Source(train, config.seed), Heldout(heldout, config.eval_samples)


def text(config: RunConfig, cache: Path) -> Text:
    """Build (or take from `cache`) tokenizer and shards, and lay the model out."""
    from decentra.data import shards
    from decentra.data.shards import Shard
    from decentra.ledger.chain import digest

    folder = cache / digest("decentra/data", repr(config.data).encode()).hex()[:16]
    paths = shards.build(config.data, folder)
    model = first_model(config)
    layout = Layout.of((name, tuple(parameter.shape)) for name, parameter in model.named_parameters())

    def fill(layout: Layout, anchor: Any) -> None:
        for name, view in layout.views(anchor).items():
            view.copy_(model.get_parameter(name).detach())

    train = Shard.open(paths["train.bin"], config.data.context, config.data.vocab_size)
    return Text(dict(paths), train.num_samples, layout, fill)


# -- a node -------------------------------------------------------------------------------------------------------------


def credentials(state: Path) -> Credentials:
    """This node's identity, made at first use."""
    from decentra.identity.keys import Identity
    from decentra.identity.signing import IdentitySigner, MemoVerifier
    from decentra.identity.tls import tls_material

    state.mkdir(parents=True, exist_ok=True)
    identity = Identity.load_or_create(state)
    return Credentials(
        IdentitySigner(identity), MemoVerifier(), lambda door: tls_material(identity, door.run_id, door.token, state).server_certificate
    )


async def transport(state: Path, door: Door, node: NodeConfig) -> NodeTransport:
    """gRPC over TLS, shaped where the node's config says so. Raises SetupError where the port is taken."""
    from decentra.identity.keys import Identity
    from decentra.identity.tls import tls_material
    from decentra.transport.grpc import GrpcTransport
    from decentra.transport.shaper import Shaper

    identity = Identity.load_or_create(state)
    tls = tls_material(identity, door.run_id, door.token, state)
    shaper = Shaper.of_link(*parse_link(node.link)) if node.link else None
    return await GrpcTransport.start(identity.peer, None, tls, host=node.listen, port=node.port, shaper=shaper)


async def directory(door: Door, node: NodeConfig, through: NodeTransport, verifier: Verifier, note: Callable[[str], None]) -> Any:
    """The DHT; without p2pd on this platform, the run's endpoints. Raises SetupError where the bootstrap is dead."""
    from decentra.directory.hivemind_dht import HivemindDirectory
    from decentra.directory.static import StaticDirectory

    def reader(record: bytes) -> tuple[PeerId, int]:
        from decentra.rounds.records import open_record

        return open_record(verifier, record)

    async def exchange(endpoint: str, own: bytes) -> list[bytes]:
        from decentra.wire.v1 import rounds_pb2

        known = dict(door.entrances)
        request = rounds_pb2.Request(run_id=door.run_id, records=rounds_pb2.Records(records=[own] if own else []))
        for peer in await dial(through, [(endpoint, known.get(endpoint, ""))]):
            reply = await through.call(peer, request.SerializeToString(), DIAL_TIMEOUT_S)
            return list(rounds_pb2.Reply.FromString(reply).records.records)
        return []

    if node.dht:
        try:
            return await HivemindDirectory.start(
                door.run_id, door.dht, host=node.listen, port=node.dht_port, announce=node.announce, reader=reader
            )
        except SetupError as error:
            if door.dht and not door.entrances:
                raise
            note(f"no DHT here: {error}; using the endpoints of the join string instead")
    own = f"{node.announce or node.listen}:{through.port}"
    return StaticDirectory([endpoint for endpoint, _ in door.entrances], exchange, own_endpoints=[own], reader=reader)


async def dial(through: NodeTransport, entrances: Sequence[tuple[str, PeerId]]) -> list[PeerId]:
    """Learn to dial the nodes at these endpoints: peers whose certificate names them. Dead ones are left out."""
    from decentra.identity.tls import peer_of_certificate
    from decentra.transport.base import Contact
    from decentra.transport.first_contact import fetch_certificate

    found = []
    for endpoint, expected in entrances:
        try:
            pem = await fetch_certificate(endpoint, DIAL_TIMEOUT_S)
            peer = peer_of_certificate(pem)
        except (DecentraError, ValueError):
            continue
        if expected in ("", peer):
            through.connect(Contact(peer, (endpoint,), pem))
            found.append(peer)
    return found


def encode_door(door: Door) -> str:
    """The join string of a door."""
    from decentra.identity.invite import Entrance, Invite, encode

    return encode(Invite(door.run_id, door.founder_key, door.token, door.dht, tuple(Entrance(e, p) for e, p in door.entrances)))


def decode_door(text: str) -> Door:
    """The door that a join string names. Raises JoinStringError."""
    from decentra.identity.invite import decode

    invite = decode(text)
    return Door(invite.run_id, invite.founder_key, invite.token, invite.dht, tuple((e.endpoint, e.peer) for e in invite.entrances))


def disk(path: Path) -> Any:
    """Files of this machine, locked. Raises StateError, SetupError."""
    from decentra.ledger.files import DiskFiles

    return DiskFiles(path)


def wiring() -> Wiring:
    """Everything a node daemon needs."""
    return Wiring(
        make_machine=machine,
        credentials=credentials,
        transport=transport,
        directory=directory,
        text=text,
        disk=disk,
        encode_door=encode_door,
        decode_door=decode_door,
        dial=dial,
    )
