"""Hostile messages over real gRPC and TLS: two live members, a third party that holds the token, and garbage."""

from __future__ import annotations

import asyncio
from typing import Any

from hostile_messages import IN_TRAFFIC, Case, cases
from hostile_swarm import PATIENCE_S, Stage
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from decentra.errors import PeerError
from decentra.identity.keys import Identity
from decentra.identity.tls import tls_material
from decentra.ledger.chain import digest
from decentra.rounds import records
from decentra.transport.base import MAX_CALL_BYTES, Contact
from decentra.transport.grpc import GrpcTransport
from decentra.wire.v1 import swarm_pb2
from sims.experiments.protocol_fuzz.machines import small_blocks
from sims.experiments.protocol_fuzz.swarm import Swarm

TOKEN = b"t" * 16
CASES_A_SWARM = 50
CALL_TIMEOUT_S = 3.0


class WiredSwarm(Swarm):
    """The same swarm with a gRPC transport for each node, on the loop's real clock."""

    async def lay(self, count: int) -> None:
        """Listen for `count` nodes that are to come."""
        self.wired: dict[str, tuple[GrpcTransport, bytes]] = {}
        for number in range(count):
            await self.listen(Identity.from_seed(digest("test/identity", f"{self.seed}/{number}".encode())))

    async def listen(self, identity: Identity) -> GrpcTransport:
        tls = tls_material(identity, b"r" * 16, TOKEN)
        transport = await GrpcTransport.start(identity.peer, None, tls, host="127.0.0.1", port=0)
        self.wired[identity.peer] = (transport, tls.server_certificate)
        return transport

    def _ports(self, node: Any) -> Any:
        ports, server = super()._ports(node)
        self.network.remove(node.peer)
        transport, _ = self.wired[node.peer]
        transport.handler = server
        node.transport = ports.transport = transport
        return ports, server

    def _record(self, node: Any, ports: Any) -> bytes:
        transport, certificate = self.wired[node.peer]
        record = swarm_pb2.Record(
            run_id=self.run.run_id, peer=node.peer, sequence=node.boots, endpoints=[f"127.0.0.1:{transport.port}"],
            server_certificate=certificate,
        )  # fmt: skip
        return ports.signer.sign(records.DOMAIN_RECORD, record.SerializeToString())


    async def close(self) -> None:
        """The members' tasks end; the transports' own are gRPC's to end."""
        for node in self.nodes:
            node.task.cancel()
            await asyncio.wait([node.task])
        await asyncio.gather(*(transport.close() for transport, _ in self.wired.values()))
        self.check()


class WiredStage(Stage):
    """Cases go over the wire: from the second member, or from a stranger with the token, to the first."""

    async def start(self) -> None:
        await self.swarm.lay(self.num_members)
        await super().start()
        self.outsider = await self.swarm.listen(self.stranger)
        target = self.swarm.nodes[0].peer
        transport, certificate = self.swarm.wired[target]
        self.outsider.connect(Contact(target, (f"127.0.0.1:{transport.port}",), certificate))

    def _target(self, case: Case) -> Any:
        return self.taps[0]

    def identity(self, case: Case) -> Identity:
        return self.stranger if case.sender == "stranger" else self.swarm.nodes[1].identity

    def _from(self, sender: str) -> GrpcTransport:
        return self.outsider if sender == self.stranger.peer else self.swarm.wired[sender][0]

    async def _ask(self, tap: Any, sender: str, data: bytes) -> None:
        if sender == tap.node.peer:
            return
        try:
            self._judge_reply(await self._from(sender).call(tap.node.peer, data, CALL_TIMEOUT_S))
        except PeerError as reason:
            self._judge_reason(reason)  # type: ignore[arg-type]

    async def _pull(self, tap: Any, sender: str, data: bytes, stream: str) -> None:
        frames = self._from(sender).pull(tap.node.peer, data, CALL_TIMEOUT_S)
        try:
            async for _ in frames:
                if stream in ("cut", "silence"):
                    break
            self.answered += 1
        except PeerError as reason:
            self._judge_reason(reason)  # type: ignore[arg-type]
        finally:
            await frames.aclose()

    async def garbage(self) -> None:
        """The largest messages there are, of nothing."""
        for sender in (self.stranger.peer, self.swarm.nodes[1].peer):
            for data in (b"\xff" * MAX_CALL_BYTES, b"\x2a\x00" * (MAX_CALL_BYTES // 2), b""):
                await self._ask(self.taps[0], sender, data)
                await self._pull(self.taps[0], sender, data, "none")


def lived(story: Any) -> None:
    """Two members over gRPC live through `story(stage)`, and go on."""
    swarm = WiredSwarm(seed=9, start_members=2, stop_syncs=10**6)
    stage = WiredStage(swarm, 2)

    async def main() -> None:
        def odd(_: Any, context: dict[str, Any]) -> None:
            # gRPC's poller outlives the loop of a test before this one, and says so here.
            if "PollerCompletionQueue" not in str(context.get("message")):
                swarm.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

        asyncio.get_running_loop().set_exception_handler(odd)
        async with asyncio.timeout(PATIENCE_S):
            await stage.start()
            for node in swarm.nodes:
                node.trainer.step_s = 0.02
            await story(stage)
            await stage.end()

    with small_blocks():
        asyncio.run(main())


@settings(
    max_examples=2, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(st.lists(cases(), min_size=CASES_A_SWARM, max_size=CASES_A_SWARM, unique=True))
def test_live_members_refuse_a_hundred_hostile_messages_over_grpc_and_go_on(batch: list[Case]) -> None:
    async def story(stage: WiredStage) -> None:
        for case in batch:
            if case.live and case.kind in IN_TRAFFIC:
                stage.copies.setdefault(case.kind, []).append(case)
            else:
                await stage.feed(case)
        await asyncio.gather(*stage.running)
        assert stage.refused + stage.answered > 0

    lived(story)


def test_the_largest_garbage_is_refused_by_name_and_no_internal_error() -> None:
    async def story(stage: WiredStage) -> None:
        await stage.garbage()
        assert stage.refused == 12 and stage.answered == 0

    lived(story)
