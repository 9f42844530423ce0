"""Dial-back: only at the caller's own record, few at a time; what is made of the answers."""

import asyncio

import pytest
from stories import swarm_of

from decentra.errors import PeerFault, RefusedError
from decentra.rounds import reachability, records
from decentra.rounds.reachability import DialBack, Verdict, prove
from decentra.sim import clock
from decentra.wire.v1 import rounds_pb2, swarm_pb2

LIMIT_S = 400.0


def record_of(swarm, node, **changes):
    """A record of this node, signed by it."""
    fields = {"run_id": swarm.run.run_id, "peer": node.peer, "sequence": 99, "endpoints": ["192.0.2.1:7701"], "server_certificate": b"pem"}
    return node.member.ports.signer.sign(records.DOMAIN_RECORD, swarm_pb2.Record(**{**fields, **changes}).SerializeToString())


class Dialled:
    """Dials nobody; answers as told, after a while."""

    def __init__(self, *reachable):
        self.reachable, self.asked, self.at_once, self.most_at_once = reachable, [], 0, 0

    async def __call__(self, endpoint, certificate):
        self.asked.append((endpoint, certificate))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(1.0)
        self.at_once -= 1
        return endpoint in self.reachable


def proving(count, reachable_from, story):
    """A swarm whose members dial back with `reachable_from(number)` as the endpoints they reach."""

    async def whole(swarm):
        for node in swarm.nodes:
            node.dialled = Dialled(*reachable_from(node.number))
            node.member.ports.dial_back = DialBack(node.dialled)
        await story(swarm)
        await swarm.finish(LIMIT_S)

    return swarm_of(count, whole)


@pytest.mark.parametrize(
    ("reaching", "dialable", "asked"),
    [((1, 2, 3, 4), True, 2), ((), False, 2), ((1, 3, 4), True, 4), ((1,), False, 4)],
)
def test_two_members_that_agree_decide_whether_a_node_can_be_dialled(reaching, dialable, asked):
    async def story(swarm):
        node, others = swarm.nodes[0], swarm.nodes[1:]
        verdict = await prove(node.member.ports, swarm.run.run_id, record_of(swarm, node), [n.peer for n in others])
        assert verdict.dialable is dialable
        assert [bool(n.dialled.asked) for n in others] == [n.number <= asked for n in others]
        assert others[0].dialled.asked[0] == ("192.0.2.1:7701", b"pem")
        if not dialable:
            assert "no node with its certificate answers at 192.0.2.1:7701" in verdict.why

    proving(5, lambda number: ["192.0.2.1:7701"] if number in reaching else [], story)


def test_one_member_decides_where_there_is_one_and_nobody_where_there_is_none():
    async def story(swarm):
        node, other = swarm.nodes
        ports, run_id = node.member.ports, swarm.run.run_id
        assert (await prove(ports, run_id, record_of(swarm, node), [other.peer])).dialable is False
        assert await prove(ports, run_id, record_of(swarm, node), []) == Verdict(None)
        assert await prove(ports, run_id, record_of(swarm, node), ["z" * 32]) == Verdict(None)
        other.member.ports.dial_back = None
        assert await prove(ports, run_id, record_of(swarm, node), [other.peer]) == Verdict(None)

    proving(2, lambda number: [], story)


def test_nobody_is_dialled_at_another_ones_record_or_at_one_of_another_run():
    async def story(swarm):
        node, other, third = swarm.nodes

        async def ask(record):
            await node.member.call(other.peer, rounds_pb2.Request(probe=rounds_pb2.Probe(record=record)), 5)

        for record in (record_of(swarm, third), record_of(swarm, node, peer=third.peer), record_of(swarm, node, run_id=b"another run")):
            with pytest.raises(PeerFault, match="its own record"):
                await ask(record)
        with pytest.raises(PeerFault):
            await ask(b"not a record")
        assert not other.dialled.asked

    proving(3, lambda number: [], story)


def test_few_are_dialled_back_at_once_each_once_and_at_few_endpoints():
    async def main():
        dialled = Dialled(*(f"192.0.2.{n}:1" for n in range(50)))
        back = DialBack(dialled)

        def ask(name, endpoints=("192.0.2.1:1",)):
            return back.probe(swarm_pb2.Record(peer=name, endpoints=endpoints))

        answers = await asyncio.gather(*(ask(f"peer {n % 10}") for n in range(20)), return_exceptions=True)
        assert dialled.most_at_once == reachability.MAX_AT_ONCE == sum(not isinstance(a, Exception) for a in answers)
        assert all("ask again" in str(a) for a in answers if isinstance(a, RefusedError))
        assert (await ask("peer 0")).reached, "and then there is room again"
        dialled.asked.clear()
        assert (await ask("many", [f"192.0.2.{n}:1" for n in range(50)])).reached
        assert len(dialled.asked) == reachability.MAX_ENDPOINTS
        assert not (await ask("none", [])).reached

    clock.run(main())
