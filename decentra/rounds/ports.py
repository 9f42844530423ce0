"""What a member needs from outside: everything that is not the protocol is injected here, so it can be simulated."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from google.protobuf.message import DecodeError

from decentra.codec.base import num_blocks
from decentra.config import RunConfig, run_from_bytes
from decentra.directory.base import Directory
from decentra.errors import PeerFault
from decentra.ledger.apply import Machine
from decentra.ledger.chain import digest
from decentra.ledger.store import Store
from decentra.outer.layout import Layout, Slot
from decentra.rounds.download import DIGEST_BYTES
from decentra.rounds.flows import Flows
from decentra.rounds.records import DOMAIN_MANIFEST, read_record
from decentra.seams import Signer, Verifier
from decentra.settings import effective
from decentra.transport.base import Contact, Transport
from decentra.types import Digest, PeerId, SlotPlan, SlotResult
from decentra.wire.v1 import rounds_pb2, swarm_pb2

CALL_TIMEOUT_S = 15.0

if TYPE_CHECKING:
    from decentra.rounds.reachability import DialBack

T = TypeVar("T")

MakeMachine = Callable[[RunConfig, Layout], Machine]
"""How a run's config becomes objects; build gives it."""


class ReplicaLost(Exception):
    """The trainer has lost its replica, and with it what no entry has counted: the next slot must start at the anchor."""


class TrainerPort(Protocol):
    """The local trainer as the member sees it. `local` holds its parameters of the due fragment once a slot is done."""

    local: torch.Tensor
    """(num_elements,) fp32, canonical layout; written by the trainer before `train` returns, and then not before the next does."""

    async def train(self, plan: SlotPlan, final: Awaitable[SlotPlan] | None = None) -> SlotResult:
        """Take the slot's inner steps and store the local parameters of its fragment. Cancelling abandons the slot.

        final: of a plan with overlap steps, what holds after them; it comes when the last sync is decided.
        Raises ReplicaLost.
        """
        ...

    def progress(self) -> tuple[int, int]:
        """(steps done, steps planned) of the running slot; (0, 0) outside one."""
        ...


class RunBlocking(Protocol):
    """Runs work that would hold the event loop: a thread in nodes, a direct call charged in virtual time elsewhere."""

    def __call__(self, work: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        """The result of `work(*arguments)`."""
        ...


@dataclass(slots=True)
class Ports:
    """Everything a member is given. `note` takes one line for people: what is waited for, who left, what was refused.

    dial_back: how others are told whether they can be dialled; None: they are refused.
    """

    transport: Transport
    directory: Directory
    store: Store
    signer: Signer
    verifier: Verifier
    trainer: TrainerPort
    run_blocking: RunBlocking
    rng: random.Random
    note: Callable[[str], None]
    keep_snapshots: int = 2
    dial_back: DialBack | None = None
    flows: Flows = field(default_factory=Flows)


@dataclass(frozen=True, slots=True)
class Run:
    """What the signed manifest says, read once, under the settings that S carries.

    founded: the manifest's own `[run]`. config, machine: where `settings` hold; "" changes nothing.
    """

    run_id: bytes
    manifest: bytes
    founded: RunConfig
    config: RunConfig
    layout: Layout
    machine: Machine
    make_machine: MakeMachine
    founder: PeerId
    files: tuple[tuple[str, Digest, int], ...]
    initial_header_digest: Digest
    golden_digest: Digest
    num_samples: int
    protocol_version: int
    token_digest: bytes
    operator_keys: tuple[bytes, ...]
    settings: str = ""

    def under(self, settings: str) -> Run:
        """The same run where these settings hold, whichever held before. Raises ConfigError where they cannot."""
        if settings == self.settings:
            return self
        config = effective(self.founded, settings)
        least = config.first_lease_samples if settings else 0
        machine = dataclasses.replace(self.make_machine(config, self.layout), lease_samples=least)
        return dataclasses.replace(self, config=config, machine=machine, settings=settings)

    def contribution_bytes(self) -> tuple[int, int]:
        """(fp32 bytes, encoded bytes with block digests) of one contribution of each fragment, all together."""
        chunk_bytes = self.machine.codecs[self.machine.up].chunk_bytes
        sizes = [part.num_chunks * chunk_bytes + DIGEST_BYTES * num_blocks(part.num_chunks) for part in self.machine.fragments]
        return 4 * self.layout.num_elements, sum(sizes)

    def is_done(self, sync: int, tokens: int) -> bool:
        """Whether the run ends at this state."""
        config = self.config
        return bool(config.stop_syncs and sync >= config.stop_syncs) or bool(config.stop_tokens and tokens >= config.stop_tokens)


def run_id_of(manifest: bytes) -> bytes:
    """16 bytes that name a run: from the digest of its (unsigned) manifest."""
    return manifest_digest(manifest)[:16]


def manifest_digest(manifest: bytes) -> Digest:
    """What h_0 starts from."""
    return digest("decentra/manifest", manifest)


def read_manifest(signed: bytes, verifier: Verifier, make_machine: MakeMachine) -> Run:
    """Verify and read a signed manifest. Raises ValueError."""
    founder, payload = verifier.open(DOMAIN_MANIFEST, signed)
    m = swarm_pb2.Manifest()
    m.ParseFromString(payload)
    if m.founder_key != swarm_pb2.Signed.FromString(signed).public_key:
        raise ValueError("the manifest is signed by another key than its founder's")
    config = run_from_bytes(m.run_config)
    layout = Layout(tuple(Slot(t.name, tuple(t.shape), t.offset) for t in m.layout))
    return Run(
        run_id=run_id_of(payload),
        manifest=signed,
        founded=config,
        config=config,
        layout=layout,
        machine=make_machine(config, layout),
        make_machine=make_machine,
        founder=founder,
        files=tuple((f.name, f.digest, f.size_bytes) for f in m.files),
        initial_header_digest=m.initial_header_digest,
        golden_digest=m.golden_digest,
        num_samples=m.num_samples,
        protocol_version=m.protocol_version,
        token_digest=m.token_digest,
        operator_keys=tuple(m.operator_keys),
    )


async def call(transport: Transport, run_id: bytes, peer: PeerId, request: rounds_pb2.Request) -> rounds_pb2.Reply:
    """One control message of a node that is not a member yet. Raises PeerError."""
    request.run_id = run_id
    data = await transport.call(peer, request.SerializeToString(), CALL_TIMEOUT_S)
    try:
        return rounds_pb2.Reply.FromString(data)
    except DecodeError as error:
        raise PeerFault(peer, f"its reply cannot be read: {error}") from error


def learn_record(ports: Ports, run_id: bytes, signed: bytes) -> swarm_pb2.Record:
    """Verify a directory record of this run and learn how to dial its peer. Raises ValueError."""
    record = read_record(ports.verifier, signed)
    if record.run_id != run_id:
        raise ValueError(f"a record of {record.peer[:8]} is for another run")
    if record.peer != ports.signer.peer:
        ports.transport.connect(Contact(record.peer, tuple(record.endpoints), record.server_certificate))
        ports.directory.learn(signed)
    return record


async def meet(ports: Ports, run_id: bytes) -> list[PeerId]:
    """Peers of the run that the directory or this node's own disk knows and it can now dial, itself left out.

    What is known is kept on disk: a swarm that restarts finds itself though its directory has forgotten it.
    """
    for signed in ports.store.contacts():
        ports.directory.learn(signed)
    found = {}
    for signed in (await ports.directory.records()).values():
        try:
            record = learn_record(ports, run_id, signed)
        except ValueError as error:
            ports.note(f"a directory record is refused: {error}")
            continue
        if record.peer != ports.signer.peer:
            found[record.peer] = (signed, bool(record.endpoints))
    await ports.run_blocking(ports.store.keep_contacts, sorted(signed for signed, _ in found.values()))
    return [peer for peer, (_, can_be_dialled) in found.items() if can_be_dialled]


class Changed:
    """Wakes whoever waits for any change of a member."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.count = 0
        """Changes so far."""

    def notify(self) -> None:
        """Something changed."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float, since: int | None = None) -> None:
        """Return at the next change or after `timeout_s`; at once where there was one since the count was `since`."""
        if since is not None and since != self.count:
            return
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._event.wait()
        except TimeoutError:
            pass
