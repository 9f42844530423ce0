"""From config to objects: the only file that names concrete classes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decentra.codec.base import Codec
from decentra.codec.cast import Bf16, Fp32
from decentra.codec.fp4 import Fp4
from decentra.codec.int4 import Int4
from decentra.codec.int8 import Int8
from decentra.codec.topk import TopK
from decentra.config import NodeConfig, OuterConfig, RunConfig, parse_link
from decentra.errors import DecentraError, SetupError
from decentra.ledger.apply import Machine
from decentra.ledger.golden import check_machine
from decentra.node.wiring import Credentials, Door, NodeTransport, Text, Wiring
from decentra.outer.base import OuterOptimizer
from decentra.outer.fragments import arranged, fragments
from decentra.outer.layout import Layout
from decentra.outer.nesterov import Nesterov
from decentra.outer.sgd import Sgd
from decentra.seams import Verifier
from decentra.types import PeerId

DIAL_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 4.0

DHT_ADDRESS = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/(?P<host>[^/]+)/tcp/(?P<port>\d{1,5})/p2p/\w+$")
"""Multiaddresses as `decentra bootstrap` prints them."""


def codecs() -> dict[str, Codec]:
    """Every codec by the name that travels."""
    return {codec.name: codec for codec in (Fp32(), Bf16(), Int8(), Int4(), Fp4(), TopK())}


def machine(config: RunConfig, layout: Layout) -> Machine:
    """How this run applies entries."""
    outer = config.outer
    return Machine(
        fragments=fragments(layout, outer.fragments),
        codecs=codecs(),
        outer=outer_optimizer(outer),
        up=config.codec.up,
        down=config.codec.down,
        start_members=config.start_members,
        tokens_a_sample=config.data.context,
        gather=config.codec.aggregate == "gather",
        feedback=config.codec.feedback,
        normalised=outer.normalises,
    )


def outer_optimizer(config: OuterConfig) -> OuterOptimizer:
    """What moves the anchor."""
    return Nesterov(config.lr, config.momentum) if config.optimizer == "nesterov" else Sgd(config.lr)


def layout_of(config: RunConfig, model: Any) -> Layout:
    """Where the parameters of a run's model stand."""
    return arranged([(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()], config.outer.fragments)


# -- training -----------------------------------------------------------------------------------------------------------


def first_model(config: RunConfig) -> Any:
    """The Llama of a run with its first weights."""
    from decentra.model.init import seeded

    _place_compiler_cache()
    return seeded(config.llama, config.seed)


def trainer_device(name: str) -> str:
    """The torch device of a trainer; auto is CUDA where torch sees it. Raises SetupError where it is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SetupError(f"device {name!r} is not to be had ({reason}); use auto, cpu, or one that torch lists") from error
    return name


def set_threads(count: int) -> None:
    """CPU threads of a trainer in this process."""
    import torch

    torch.set_num_threads(count)


def _place_compiler_cache() -> None:
    """A model's first weights import torch's compiler, which at once makes its cache in the temporary folder and leaves
    it there: the user's cache is the place for it."""
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        with contextlib.suppress(OSError, RuntimeError):
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decentra" / "inductor"
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def outfit(
    config: RunConfig, data_dir: Path, micro_batch: int = 0, device: str = "cpu", on_bad_step: str = "skip"
) -> tuple[Any, Any, Any]:
    """(replica, source, heldout) of a trainer, over shards that are in place. Raises StateError, SetupError."""
    from decentra.data.shards import Shard
    from decentra.data.stream import Source
    from decentra.train.step import Replica

    train = Shard.open(data_dir / "train.bin", config.data.context, config.data.vocab_size)
    replica = Replica(first_model(config).to(trainer_device(device)), config.inner, micro_batch, on_bad_step)
    return replica, Source(train, config.seed), heldout(config, data_dir)


def heldout(config: RunConfig, data_dir: Path, num_samples: int = 0) -> Any:
    """What a run is evaluated on, over a shard that is in place; num_samples 0: as many as it says. Raises StateError."""
    from decentra.data.shards import Shard
    from decentra.train.evaluate import Heldout

    shard = Shard.open(data_dir / "heldout.bin", config.data.context, config.data.vocab_size)
    return Heldout(shard, num_samples or config.eval_samples, mask_documents=config.inner.mask_documents)


def text_folder(config: RunConfig, cache: Path) -> tuple[Path, bool]:
    """Where the text of a run is built below `cache`, and whether that was done."""
    from decentra.data import shards
    from decentra.ledger.chain import digest

    folder = cache / digest("decentra/data", repr(config.data).encode()).hex()[:16]
    return folder, (folder / shards.STAMP).exists()


def text(config: RunConfig, cache: Path) -> Text:
    """Build (or take from `cache`) tokenizer and shards, and lay the model out."""
    from decentra.data import shards
    from decentra.data.shards import Shard

    paths = shards.build(config.data, text_folder(config, cache)[0])
    model = first_model(config)

    def fill(layout: Layout, anchor: Any) -> None:
        for name, view in layout.views(anchor).items():
            view.copy_(model.get_parameter(name).detach())

    train = Shard.open(paths["train.bin"], config.data.context, config.data.vocab_size)
    return Text(dict(paths), train.num_samples, layout_of(config, model), fill)


# -- a node -------------------------------------------------------------------------------------------------------------


async def ready(node: NodeConfig, bootstrap: Sequence[str]) -> None:
    """See Wiring: the arithmetic is the swarm's, the port is free, a DHT address that was given answers."""
    check_machine(codecs())
    if node.reachable != "no":
        _check_port(node.listen, node.port)
    await _check_dht(bootstrap)


def _check_port(host: str, port: int) -> None:
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}; choose another --port, or 0 for any free one, "
            "and for --listen an address of this machine"
        ) from error


async def _check_dht(addresses: Sequence[str]) -> None:
    """One of the addresses must take a connection: p2pd itself would try for long before it says so. Raises SetupError."""

    async def answers(address: str) -> bool:
        found = DHT_ADDRESS.match(address)
        if found is None:
            return True  # an address of another kind: p2pd will judge
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                _, writer = await asyncio.open_connection(found["host"], int(found["port"]))
            writer.close()
            return True
        return False

    if addresses and not any(await asyncio.gather(*(answers(address) for address in addresses))):
        raise SetupError(f"no DHT node answers at {', '.join(addresses)}; is it running, and reachable from here?")


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
    listens = node.reachable != "no"
    return await GrpcTransport.start(identity.peer, None, tls, host=node.listen, port=node.port, shaper=shaper, dialable=listens)


async def directory(
    door: Door, node: NodeConfig, through: NodeTransport, verifier: Verifier, sockets: Path, note: Callable[[str], None], dialable: bool
) -> Any:
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
            await _check_dht(door.dht)
            if not dialable:
                return await HivemindDirectory.start(door.run_id, door.dht, client=True, reader=reader, sockets=sockets)
            return await HivemindDirectory.start(
                door.run_id, door.dht, host=node.listen, port=node.dht_port, announce=node.announce, reader=reader, sockets=sockets
            )
        except SetupError as error:
            if door.dht and not door.entrances:
                raise
            note(f"no DHT here: {error}; using the endpoints of the join string instead")
    own = [f"{node.announce or node.listen}:{through.port}"] if dialable else []
    return StaticDirectory([endpoint for endpoint, _ in door.entrances], exchange, own_endpoints=own, reader=reader)


async def dial(through: NodeTransport, entrances: Sequence[tuple[str, PeerId]]) -> list[PeerId]:
    """Learn to dial the nodes at these endpoints: peers whose certificate names them. Dead ones are left out."""
    from decentra.identity.tls import peer_of_certificate
    from decentra.transport.base import Contact
    from decentra.transport.first_contact import fetch_certificate

    async def learn(endpoint: str, expected: PeerId) -> list[PeerId]:
        try:
            pem = await fetch_certificate(endpoint, DIAL_TIMEOUT_S)
            peer = peer_of_certificate(pem)
        except (DecentraError, ValueError):
            return []
        if expected not in ("", peer):
            return []
        through.connect(Contact(peer, (endpoint,), pem))
        return [peer]

    found = await asyncio.gather(*(learn(endpoint, expected) for endpoint, expected in entrances))
    return list(dict.fromkeys(peer for peers in found for peer in peers))


async def dial_back(endpoint: str, certificate: bytes) -> bool:
    """Whether a new TLS connection to "host:port" is answered with this PEM certificate, within PROBE_TIMEOUT_S."""
    from decentra.transport.first_contact import fetch_certificate

    try:
        return await fetch_certificate(endpoint, PROBE_TIMEOUT_S) == certificate
    except SetupError:
        return False


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
        ready=ready,
        text_folder=text_folder,
        make_machine=machine,
        credentials=credentials,
        transport=transport,
        directory=directory,
        text=text,
        disk=disk,
        encode_door=encode_door,
        decode_door=decode_door,
        dial=dial,
        dial_back=dial_back,
    )
