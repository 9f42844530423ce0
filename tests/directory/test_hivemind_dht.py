"""The DHT's edges: dead addresses, taken ports, no p2pd, nothing left behind."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from decentra.directory import hivemind_dht
from decentra.directory.hivemind_dht import BootstrapNode, HivemindDirectory
from decentra.errors import SetupError
from decentra.identity.keys import Identity
from decentra.identity.signing import sign
from decentra.wire.v1 import swarm_pb2

DEAD = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWKCcHR73GM8RoqJaLQWHQPiKycwTbZWp9DnvttCYFo6Wp"


def num_p2pd() -> int:
    """p2pd processes that are this process's children."""
    count = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(")")
        except OSError:
            continue
        count += name.endswith("(p2pd") and rest.split()[1] == str(os.getpid())
    return count


def test_a_dead_address_is_named_soon_and_leaves_nothing() -> None:
    begin_s = time.monotonic()
    with pytest.raises(SetupError, match=r"/ip4/127\.0\.0\.1/tcp/1/p2p/"):
        asyncio.run(BootstrapNode.start([DEAD]))
    assert time.monotonic() - begin_s < 15
    assert num_p2pd() == 0


def test_an_unreadable_address_is_named() -> None:
    with pytest.raises(SetupError, match=r"'127\.0\.0\.1:4000' cannot be read"):
        asyncio.run(BootstrapNode.start(["127.0.0.1:4000"]))


def test_a_missing_hivemind_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(hivemind_dht.importlib, "import_module", missing)
    with pytest.raises(SetupError, match="dht = false"):
        asyncio.run(BootstrapNode.start())


def test_nodes_meet_through_a_rendezvous_and_a_taken_port_is_refused() -> None:
    async def main() -> None:
        rendezvous = await BootstrapNode.start()
        port = int(rendezvous.addresses()[0].split("/")[4])
        assert rendezvous.addresses()[0].startswith(f"/ip4/127.0.0.1/tcp/{port}/p2p/")
        with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{port}.*dht_port"):
            await BootstrapNode.start(port=port)
        ada = Identity.create()
        a = await HivemindDirectory.start(b"r" * 16, [DEAD, *rendezvous.addresses()])
        b = await HivemindDirectory.start(b"r" * 16, rendezvous.addresses())
        other_run = await HivemindDirectory.start(b"x" * 16, rendezvous.addresses())
        assert num_p2pd() == 4
        record = sign(ada, b"record", swarm_pb2.Record(peer=ada.peer, sequence=1).SerializeToString())
        await a.announce(record)
        assert await b.records() == {ada.peer: record}
        assert await other_run.records() == {}
        assert a.alive
        for node in (a, b, other_run, rendezvous):
            await node.close()
        assert not a.alive
        assert num_p2pd() == 0

    asyncio.run(main())


def test_a_record_is_renewed_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hivemind_dht, "EXPIRES_S", 2.0)
    monkeypatch.setattr(hivemind_dht, "RENEW_S", 0.5)

    async def main() -> None:
        a = await HivemindDirectory.start(b"r" * 16)
        b = await HivemindDirectory.start(b"r" * 16, a.addresses())
        ada = Identity.create()
        record = sign(ada, b"record", swarm_pb2.Record(peer=ada.peer, sequence=1).SerializeToString())
        await b.announce(record)
        await asyncio.sleep(2.5)
        assert await a.records() == {ada.peer: record}
        await b.close()
        await asyncio.sleep(2.2)
        assert await a.records() == {}
        await a.close()

    asyncio.run(main())


def test_a_cancelled_start_leaves_no_p2pd() -> None:
    async def main() -> None:
        starting = asyncio.create_task(BootstrapNode.start())
        await asyncio.sleep(0.05)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(main())
    assert num_p2pd() == 0


def test_a_client_finds_and_is_found_but_serves_nobody() -> None:
    async def main() -> None:
        rendezvous = await BootstrapNode.start()
        run_id, signers = b"r" * 16, [Identity.create(), Identity.create()]
        full = await HivemindDirectory.start(run_id, rendezvous.addresses()[:1])
        client = await HivemindDirectory.start(run_id, rendezvous.addresses()[:1], client=True)
        try:
            assert client.addresses() == () and full.addresses()
            for directory, signer in ((full, signers[0]), (client, signers[1])):
                record = swarm_pb2.Record(peer=signer.peer, sequence=1).SerializeToString()
                await directory.announce(sign(signer, b"decentra/record", record))
            peers = {signer.peer for signer in signers}
            assert set(await full.records()) == set(await client.records()) == peers
            served = client._node._p2p.peer_id
            assert served not in rendezvous.dht.protocol.routing_table.peer_id_to_uid
            assert full._node._p2p.peer_id in rendezvous.dht.protocol.routing_table.peer_id_to_uid
        finally:
            for node in (client, full, rendezvous):
                await node.close()

    asyncio.run(main())
    assert num_p2pd() == 0


def test_a_client_cannot_be_the_first_node() -> None:
    with pytest.raises(SetupError, match="cannot be the first"):
        asyncio.run(BootstrapNode.start(client=True))
