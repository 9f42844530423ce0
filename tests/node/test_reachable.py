"""What a node makes of being found dialable or not: its record, transport, directory, join string and what it says."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decentra.config import Config, NodeConfig
from decentra.directory.memory import MemoryBoard, MemoryDirectory
from decentra.errors import SetupError
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner, MemoVerifier
from decentra.ledger.state import Member
from decentra.node import reachable
from decentra.node.node import Node, Start
from decentra.node.wiring import Credentials, Door
from decentra.rounds.ports import Ports
from decentra.rounds.reachability import Verdict
from decentra.rounds.records import DOMAIN_RECORD
from decentra.sim import clock
from decentra.wire.v1 import rounds_pb2, swarm_pb2

RUN_ID = b"r" * 16
PEERS = ["p" * 32, "q" * 32]
BOOT, OLD_DOOR = "/ip4/192.0.2.1/tcp/1/p2p/boot", ("192.0.2.1:1", "z" * 32)
NO = Verdict(False, "pppppppp says that no node with its certificate answers at 192.0.2.5:7701")


def opened(signed: bytes) -> swarm_pb2.Record:
    return swarm_pb2.Record.FromString(MemoVerifier().open(DOMAIN_RECORD, signed)[1])


class Transport:
    """Keeps the records that are sent."""

    def __init__(self) -> None:
        self.port, self.dialable = 7701, True
        self.told: list[tuple[str, swarm_pb2.Record]] = []

    async def call(self, peer: str, request: bytes, timeout_s: float) -> bytes:
        self.told += [(peer, opened(signed)) for signed in rounds_pb2.Request.FromString(request).records.records]
        return rounds_pb2.Reply().SerializeToString()


class Directory(MemoryDirectory):
    """On a board of its own, as a node's end of the DHT is."""

    def __init__(self, dialable: bool) -> None:
        super().__init__(MemoryBoard())
        self.dialable, self.closed = dialable, False

    def addresses(self) -> tuple[str, ...]:
        return ("/ip4/192.0.2.5/tcp/1/p2p/own",) if self.dialable else ()

    async def close(self) -> None:
        self.closed = True


class Bench:
    """A node with all that `reachable` touches and nothing else; `verdict` is what members will find."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, no_directory: bool = False, **config: Any) -> None:
        self.verdict, self.said, self.probed = Verdict(True), [], []
        signer = IdentitySigner(Identity.create())

        async def directory(*arguments: Any) -> Directory:
            if no_directory:
                raise SetupError("no DHT node answers")
            return Directory(arguments[-1])

        async def prove(ports: Ports, run_id: bytes, record: bytes, peers: list[str]) -> Verdict:
            self.probed.append(opened(record))
            return self.verdict

        monkeypatch.setattr(reachable, "prove", prove)
        start = Start(Path("state"), Config(node=NodeConfig(**{"listen": "192.0.2.5", **config})))
        wiring: Any = SimpleNamespace(directory=directory)
        self.transport, self.directory, nothing = Transport(), Directory(True), None
        self.node = Node(start, wiring, self.said.append, self.said.append)
        self.node.sockets = Path("nowhere")
        self.node.credentials = Credentials(signer, MemoVerifier(), lambda door: b"pem")
        self.node.door = Door(RUN_ID, b"f" * 32, b"t" * 16, (BOOT,), (OLD_DOOR,))
        self.node.transport = self.transport  # type: ignore[assignment]
        parts: Any = {"store": nothing, "trainer": nothing, "run_blocking": nothing, "signer": signer, "verifier": MemoVerifier()}
        self.node.ports = Ports(
            transport=self.transport, directory=self.directory, rng=random.Random(0), note=self.said.append, **parts
        )

    def record_of_another(self, *endpoints: str) -> tuple[str, bytes]:
        other = IdentitySigner(Identity.create())
        record = swarm_pb2.Record(run_id=RUN_ID, peer=other.peer, sequence=1, endpoints=endpoints)
        return other.peer, other.sign(DOMAIN_RECORD, record.SerializeToString())


def settled(bench: Bench) -> None:
    asyncio.run(reachable.settle(bench.node, PEERS))


def test_a_node_found_dialable_stays_as_it_is_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    settled(bench)
    assert bench.node.proved and bench.node.dialable and bench.transport.dialable
    assert bench.said == [] and bench.transport.told == [] and bench.node.ports.directory is bench.directory
    assert list(bench.probed[0].endpoints) == ["192.0.2.5:7701"] and bench.probed[0].server_certificate == b"pem"


def test_a_node_found_not_dialable_says_so_once_with_the_remedy_and_announces_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.verdict = NO
    _, known = bench.record_of_another("192.0.2.9:1")
    bench.directory.learn(known)
    settled(bench)
    assert bench.node.proved and not bench.node.dialable and not bench.transport.dialable
    assert len(bench.said) == 1
    for part in ("others cannot dial this node", "answers at 192.0.2.5:7701", "owns no part", "open the port", "--announce"):
        assert part in bench.said[0]
    now: Any = bench.node.ports.directory
    assert not now.dialable and bench.directory.closed
    records = [opened(signed) for signed in asyncio.run(now.records()).values()]
    assert [list(record.endpoints) for record in records if record.peer == bench.node.ports.signer.peer] == [[]]
    assert len(records) == 2, "what the former directory knew is not forgotten"
    assert sorted(peer for peer, _ in bench.transport.told) == PEERS
    assert all(not record.endpoints and record.sequence > bench.probed[0].sequence for _, record in bench.transport.told)
    settled(bench)
    assert len(bench.said) == 1 and list(bench.probed[1].endpoints) == ["192.0.2.5:7701"], "it still asks whether it could be dialled"


def test_a_node_that_listens_on_loopback_is_told_to_listen_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, listen="127.0.0.1")
    bench.verdict = NO
    settled(bench)
    assert "give --listen with an address that others reach" in bench.said[0] and "--announce" not in bench.said[0]


def test_a_node_becomes_dialable_when_members_find_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.verdict = NO
    settled(bench)
    bench.verdict = Verdict(True)
    settled(bench)
    assert bench.node.dialable and bench.transport.dialable
    assert list(bench.transport.told[-1][1].endpoints) == ["192.0.2.5:7701"]
    assert "can dial this node at 192.0.2.5:7701 now" in bench.said[-1]


@pytest.mark.parametrize("reachable_says", ["yes", "no"])
def test_what_the_operator_says_is_not_proved(monkeypatch: pytest.MonkeyPatch, reachable_says: str) -> None:
    bench = Bench(monkeypatch, reachable=reachable_says)
    settled(bench)
    assert bench.probed == [] and not bench.node.proved


def test_where_nobody_could_be_asked_nothing_changes_but_what_a_member_was_when_it_was_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.verdict = Verdict(None)
    settled(bench)
    assert bench.node.dialable and not bench.node.proved
    was: Any = SimpleNamespace(member=lambda peer: SimpleNamespace(dialable=True))
    reachable.as_before(bench.node, was)
    assert bench.node.dialable
    was = SimpleNamespace(member=lambda peer: SimpleNamespace(dialable=False))
    reachable.as_before(bench.node, was)
    assert not bench.node.dialable and not bench.transport.dialable


def test_without_another_directory_the_present_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, no_directory=True)
    bench.verdict = NO
    settled(bench)
    assert bench.node.ports.directory is bench.directory and not bench.directory.closed
    assert "the directory stays as it was: no DHT node answers" in bench.said[1]


def test_a_join_string_leads_through_this_node_or_where_it_cannot_be_dialled_through_those_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    own = bench.node.ports.signer.peer
    door = asyncio.run(reachable.door(bench.node))
    assert door.entrances == (("192.0.2.5:7701", own), OLD_DOOR) and door.dht == ("/ip4/192.0.2.5/tcp/1/p2p/own", BOOT)
    bench.verdict = NO
    settled(bench)
    other, record = bench.record_of_another("192.0.2.9:1", "192.0.2.9:2")
    _, hidden = bench.record_of_another()
    for signed in (record, hidden):
        bench.node.ports.directory.learn(signed)
    door = asyncio.run(reachable.door(bench.node))
    assert door.entrances == (("192.0.2.9:1", other), OLD_DOOR) and door.dht == (BOOT,)
    assert door.token == bench.node.door.token


def test_a_member_looks_again_rarely_and_announces_what_it_then_is(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)

    async def main() -> None:
        me = Member(bench.node.ports.signer.peer, 1, True, 1, 0, 0)
        others = tuple(Member(peer, 1, True, 1, 0, 0) for peer in PEERS)
        member: Any = SimpleNamespace(me=me, peer=me.peer, state=SimpleNamespace(members=(me, *others)))
        looking = asyncio.create_task(reachable.keep_settled(bench.node, member))
        await asyncio.sleep(2.5 * reachable.UNPROVED_AGAIN_S)
        assert len(bench.probed) == 1, "once it is proved it looks more rarely"
        bench.verdict = NO
        await asyncio.sleep(reachable.AGAIN_S)
        assert len(bench.probed) == 2 and not member.me.dialable
        looking.cancel()
        await asyncio.wait({looking})

    clock.run(main())
