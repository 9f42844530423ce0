"""gRPC and TLS: who is let in, who is believed, what is said when not."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from decentra.errors import PeerFault, PeerUnreachable, SetupError
from decentra.identity import tls as tls_room
from decentra.identity.keys import Identity
from decentra.identity.tls import peer_of_certificate, tls_material
from decentra.transport.base import FRAME_BYTES, Contact
from decentra.transport.first_contact import fetch_certificate
from decentra.transport.grpc import GrpcTransport
from decentra.transport.shaper import Shaper

RUN_ID, TOKEN = b"r" * 16, b"t" * 16


class Hello:
    def __init__(self) -> None:
        self.callers: set[str] = set()

    async def on_call(self, sender: str, request: bytes) -> bytes:
        self.callers.add(sender)
        return b"hello"

    async def on_pull(self, sender: str, request: bytes) -> AsyncIterator[bytes]:
        for _ in range(int(request)):
            yield bytes(FRAME_BYTES)


class Node:
    """One node: identity, certificates, a running transport."""

    def __init__(self, identity: Identity, transport: GrpcTransport, certificate: bytes) -> None:
        self.identity, self.transport, self.certificate = identity, transport, certificate
        self.endpoint = f"127.0.0.1:{transport.port}"
        self.contact = Contact(identity.peer, (self.endpoint,), certificate)

    @classmethod
    async def start(cls, token: bytes = TOKEN, port: int = 0, shaper: Shaper | None = None, handler: Hello | None = None) -> "Node":
        identity = Identity.create()
        tls = tls_material(identity, RUN_ID, token)
        transport = await GrpcTransport.start(
            identity.peer, handler or Hello(), tls, host="127.0.0.1", port=port, shaper=shaper
        )
        return cls(identity, transport, tls.server_certificate)


async def close(*nodes: Node) -> None:
    for node in nodes:
        await node.transport.close()


def test_a_caller_without_the_token_is_refused_and_told_so() -> None:
    async def main() -> None:
        handler = Hello()
        member, stranger = await Node.start(handler=handler), await Node.start(token=b"x" * 16)
        stranger.transport.connect(member.contact)
        with pytest.raises(PeerFault, match="token"):
            await stranger.transport.call(member.identity.peer, b"", 5)
        with pytest.raises(PeerFault, match="token"):
            _ = [frame async for frame in stranger.transport.pull(member.identity.peer, b"1", 5)]
        assert not handler.callers
        await close(member, stranger)

    asyncio.run(main())


def test_a_certificate_of_the_authority_without_an_identity_is_refused() -> None:
    async def main() -> None:
        member, victim = await Node.start(), Identity.create()
        identity = Identity.create()
        tls = tls_material(identity, RUN_ID, TOKEN)
        # Who holds the token can issue itself any certificate, and so passes TLS; but this one names no identity.
        key, authority = ec.generate_private_key(ec.SECP256R1()), tls_room.authority_key(RUN_ID, TOKEN)
        builder = tls_room._builder(tls_room._node_name(), tls_room._authority_name(), key)
        certificate = tls_room._pem(builder.sign(authority, hashes.SHA256()))
        bare = dataclasses.replace(tls, client_key=tls_room._key_pem(key), client_certificate=certificate)
        stranger = await GrpcTransport.start(victim.peer, Hello(), bare, host="127.0.0.1", port=0)
        stranger.connect(member.contact)
        with pytest.raises(PeerFault, match="names no decentra identity"):
            await stranger.call(member.identity.peer, b"", 5)
        await stranger.close()
        await close(member)

    asyncio.run(main())


def test_an_impostor_at_a_peers_endpoint_is_refused() -> None:
    async def main() -> None:
        caller, member, impostor = [await Node.start() for _ in range(3)]
        caller.transport.connect(Contact(member.identity.peer, (impostor.endpoint,), member.certificate))
        with pytest.raises(PeerFault, match="does not hold the key of this peer's record"):
            await caller.transport.call(member.identity.peer, b"", 5)
        await close(caller, member, impostor)

    asyncio.run(main())


def test_a_record_with_another_peers_certificate_is_refused_before_dialling() -> None:
    async def main() -> None:
        caller, member, impostor = [await Node.start() for _ in range(3)]
        caller.transport.connect(Contact(member.identity.peer, (impostor.endpoint,), impostor.certificate))
        with pytest.raises(PeerFault, match=f"the certificate of {impostor.identity.peer[:8]}"):
            await caller.transport.call(member.identity.peer, b"", 5)
        caller.transport.connect(Contact(member.identity.peer, (member.endpoint,), b"rubbish"))
        with pytest.raises(PeerFault, match="does not hold"):
            await caller.transport.call(member.identity.peer, b"", 5)
        await close(caller, member, impostor)

    asyncio.run(main())


def test_a_taken_port_is_named_with_a_remedy() -> None:
    async def main() -> None:
        first = await Node.start()
        with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{first.transport.port}.*choose another port"):
            await Node.start(port=first.transport.port)
        await close(first)

    asyncio.run(main())


def test_the_next_endpoint_is_tried_and_a_restarted_peer_is_found_again() -> None:
    async def main() -> None:
        caller, member = await Node.start(), await Node.start()
        caller.transport.connect(Contact(member.identity.peer, ("127.0.0.1:1", member.endpoint), member.certificate))
        assert await caller.transport.call(member.identity.peer, b"", 5) == b"hello"
        assert len([frame async for frame in caller.transport.pull(member.identity.peer, b"3", 5)]) == 3
        tls, port = member.transport._tls, member.transport.port
        await member.transport.close()
        with pytest.raises(PeerUnreachable):
            await caller.transport.call(member.identity.peer, b"", 5)
        again = await GrpcTransport.start(member.identity.peer, Hello(), tls, host="127.0.0.1", port=port)
        loop = asyncio.get_running_loop()
        until_s, reply = loop.time() + 8, b""
        while not reply and loop.time() < until_s:
            try:
                reply = await caller.transport.call(member.identity.peer, b"", 5)
            except PeerUnreachable:
                await asyncio.sleep(0.1)
        assert reply == b"hello"
        await again.close()
        await close(caller)

    asyncio.run(main())


def test_an_endpoints_certificate_can_be_fetched_and_pinned_without_any_of_ones_own() -> None:
    async def main() -> None:
        caller, member = await Node.start(), await Node.start()
        certificate = await fetch_certificate(member.endpoint, 5)
        assert certificate == member.certificate
        peer = peer_of_certificate(certificate)
        caller.transport.connect(Contact(peer, (member.endpoint,), certificate))
        assert await caller.transport.call(peer, b"", 5) == b"hello"
        await close(caller, member)
        with pytest.raises(SetupError, match=member.endpoint):
            await fetch_certificate(member.endpoint, 5)
        with pytest.raises(SetupError, match="host:port"):
            await fetch_certificate("nowhere", 5)

    asyncio.run(main())


def test_callers_are_refused_by_name_until_there_is_a_handler() -> None:
    async def main() -> None:
        caller, member = await Node.start(), await Node.start()
        member.transport.handler = None
        caller.transport.connect(member.contact)
        with pytest.raises(PeerFault, match="still starting"):
            await caller.transport.call(member.identity.peer, b"", 5)
        member.transport.handler = Hello()
        assert await caller.transport.call(member.identity.peer, b"", 5) == b"hello"
        await close(caller, member)

    asyncio.run(main())


def test_a_shaped_stream_keeps_its_rate_while_calls_keep_their_round_trip() -> None:
    async def main() -> None:
        rate, delay_s = 50e6, 0.05
        caller, member = [await Node.start(shaper=Shaper.of_link(rate, delay_s)) for _ in range(2)]
        caller.transport.connect(member.contact)
        await caller.transport.call(member.identity.peer, b"", 5)
        loop, begin_s = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        num_bytes, round_trips_s = 0, []

        async def ping() -> None:
            while True:
                asked_s = loop.time()
                await caller.transport.call(member.identity.peer, b"", 5)
                round_trips_s.append(loop.time() - asked_s)

        pinging = asyncio.create_task(ping())
        async for frame in caller.transport.pull(member.identity.peer, b"40", 5):
            num_bytes += len(frame)
        took_s = loop.time() - begin_s
        pinging.cancel()
        expected_s = num_bytes / rate + 2 * delay_s + FRAME_BYTES / rate
        assert expected_s * 0.98 < took_s < expected_s * 1.4
        assert sorted(round_trips_s)[len(round_trips_s) // 2] < 2 * delay_s + 0.06
        await close(caller, member)

    asyncio.run(main())


def test_a_failed_handshake_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    test_a_caller_without_the_token_is_refused_and_told_so()
    assert capfd.readouterr().err == ""
