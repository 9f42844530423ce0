"""A live swarm to be fed hostile messages: four members on the virtual clock, each behind a tap, one of which may lie.

A tap remembers what goes through it, as material for cases, and changes what its node answers while it has cases to use up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

from google.protobuf.message import DecodeError
from hostile_messages import IN_TRAFFIC, Case, Keys, by_hand, changed, fitted, header_of

from decentra.errors import RefusedError
from decentra.identity.keys import Identity
from decentra.ledger.chain import digest
from decentra.rounds import accept, bounds
from decentra.rounds.view import leader_order
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES
from decentra.wire.v1 import rounds_pb2
from sims.experiments.protocol_fuzz.swarm import Swarm

MEMBERS = 4
LIAR = 3
PATIENCE_S = 400.0


class Tap:
    """The handler of a node: its server, what it was asked and what it answers."""

    def __init__(self, stage: Stage, node: Any) -> None:
        self.stage, self.node, self.server = stage, node, node.transport.handler
        self.lies: list[Case] = []
        self.donates_lies = False

    async def on_call(self, sender: str, request: bytes) -> bytes:
        try:
            message = rounds_pb2.Request.FromString(request)
        except DecodeError:
            return bytes(await self.server.on_call(sender, request))
        kind = message.WhichOneof("kind")
        self.stage.seen[kind] = message
        if (cases := self.stage.copies.get(kind)) and sender != self.stage.stranger.peer:
            await self.stage.feed_copy(self, sender, message, cases.pop())
        reply: bytes = await self.server.on_call(sender, request)
        answer = rounds_pb2.Reply.FromString(reply)
        self.stage.answers[answer.WhichOneof("kind")] = answer
        # A snapshot is taken on its donor's word: only test_hostile's donors lie about it, to a joiner.
        whole = answer.WhichOneof("kind") == "head" and answer.head.HasField("snapshot")
        if whole and self.lies and self.donates_lies and self.lies[-1].live:
            answer.head.snapshot.header = header_of(answer.head.snapshot.header, self.lies.pop().changes[0].what)
            return answer.SerializeToString()
        if self.lies and (not whole or self.donates_lies) and (answer.WhichOneof("kind") != "done" or not self.lies[-1].live):
            return self.stage.lie(self, answer, self.lies.pop())
        return reply

    async def on_pull(self, sender: str, request: bytes) -> AsyncIterator[bytes]:
        frames = [frame async for frame in self.server.on_pull(sender, request)]
        for frame in frames if not self.lies else self.stage.bent(frames, self.lies.pop().stream):
            if frame is None:
                await asyncio.Event().wait()
            yield frame


class Stage:
    """The swarm, the taps, and what was seen."""

    def __init__(self, swarm: Swarm, num_members: int = MEMBERS) -> None:
        self.swarm, self.num_members = swarm, num_members
        self.seen: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.taps: list[Tap] = []
        self.stranger = Identity.from_seed(digest("test/identity", b"stranger"))
        self.copies: dict[str, list[Case]] = {}
        self.running: list[asyncio.Task[None]] = []
        self.refused = self.answered = 0

    async def start(self) -> None:
        await self.swarm.start(self.num_members)
        for node in self.swarm.nodes:
            tap = Tap(self, node)
            node.transport.handler = tap
            self.taps.append(tap)
        await self.swarm.until(lambda: set(IN_TRAFFIC) <= set(self.seen), what="a message of each kind in traffic")

    # -- requests ---------------------------------------------------------------------------------------------------

    def identity(self, case: Case) -> Identity:
        """Whose message it is."""
        if case.sender == "stranger":
            return self.stranger
        member = self.swarm.newest()
        order = leader_order(member.hash, member.state.members)
        leader = self.swarm.by_peer(order[member.attempt % len(order)])
        return leader.identity if case.sender == "leader" else self.swarm.nodes[LIAR].identity

    def ids(self) -> list[str]:
        return [node.peer for node in self.swarm.nodes] + [self.stranger.peer]

    def request(self, case: Case) -> bytes:
        """The message of a case, as the target's round now stands."""
        sender, member = self.identity(case), self._target(case).node.member
        message = self.seen.get(case.kind) or by_hand(case.kind, member.run.run_id, member)
        message = type(message).FromString(message.SerializeToString())
        if case.live:
            fitted(message, member, sender.peer)
        return self._changed(message, case, sender)

    def _changed(self, message: Any, case: Case, sender: Identity) -> bytes:
        keys = Keys((None, sender, self.stranger, sender)[case.signer])
        same = [m for m in self.seen.values() if type(m) is type(message)]
        return changed(message, case, keys, self.ids(), same)

    async def feed_copy(self, tap: Tap, sender: str, message: Any, case: Case) -> None:
        """What is on its way to a node comes there changed first, from who sent it or from a stranger."""
        identity = self.stranger if case.sender == "stranger" else self.swarm.by_peer(sender).identity
        copy = type(message).FromString(message.SerializeToString())
        data = self._changed(copy, case, identity)
        if not _is_a_voters_lie(tap.node.member, identity.peer, data):
            task = asyncio.ensure_future(self._ask(tap, identity.peer, data))
            self.running.append(task)
            await asyncio.wait([task], timeout=0.001)

    def _target(self, case: Case) -> Tap:
        return self.taps[case.target % LIAR]

    async def play(self, batch: list[Case]) -> None:
        """Use every case up: one of three as an answer of the liar, others as messages, of those in traffic live copies."""
        self.taps[LIAR].lies = batch[2::3]
        for number, case in enumerate(batch):
            if number % 3 != 2 and case.live and case.kind in IN_TRAFFIC:
                self.copies.setdefault(case.kind, []).append(case)
            elif number % 3 != 2:
                await self.feed(case)
        await self.swarm.until(lambda: not self.taps[LIAR].lies and not any(self.copies.values()), PATIENCE_S, "every case is used", 0.2)

    async def feed(self, case: Case) -> None:
        """Send one case; what takes time goes on aside."""
        data, tap, sender = self.request(case), self._target(case), self.identity(case).peer
        if case.kind in ("contribution_root", "object_digest"):
            self.running.append(asyncio.ensure_future(self._pull(tap, sender, data, case.stream)))
        elif not _is_a_voters_lie(tap.node.member, sender, data):
            self.running.append(asyncio.ensure_future(self._ask(tap, sender, data)))
        await asyncio.sleep(case.pause_ms / 1000)
        self.swarm.check()

    async def _ask(self, tap: Tap, sender: str, data: bytes) -> None:
        """Nothing but RefusedError may come out, and where it comes at once nothing has moved."""
        member = tap.node.member
        call, before = tap.server.on_call(sender, data), standing(member)
        try:
            waits_for = call.send(None)
        except StopIteration as done:
            self._judge_reply(done.value)
        except RefusedError as reason:
            self._judge_reason(reason)
            assert standing(member) == before, f"refused, and yet it moved: {reason}"
        else:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    self._judge_reply(await _Rest(call, waits_for))
            except RefusedError as reason:
                self._judge_reason(reason)

    def _judge_reply(self, reply: bytes) -> None:
        assert len(reply) <= MAX_CALL_BYTES and rounds_pb2.Reply.FromString(reply).WhichOneof("kind")
        self.answered += 1

    def _judge_reason(self, reason: RefusedError) -> None:
        assert len(str(reason)) > 10 and "internally" not in str(reason), reason
        self.refused += 1

    async def _pull(self, tap: Tap, sender: str, data: bytes, stream: str) -> None:
        frames = tap.server.on_pull(sender, data)
        try:
            async for frame in frames:
                assert len(frame) <= FRAME_BYTES
                if stream in ("cut", "silence"):
                    break
            self.answered += 1
        except RefusedError as reason:
            self._judge_reason(reason)
        finally:
            await frames.aclose()

    # -- replies ----------------------------------------------------------------------------------------------------

    def lie(self, tap: Tap, answer: rounds_pb2.Reply, case: Case) -> bytes:
        """A hostile answer in place of a true one."""
        keys = Keys((None, tap.node.identity, self.stranger, tap.node.identity)[case.signer])
        told = rounds_pb2.Reply.FromString(answer.SerializeToString())
        data = changed(told, case, keys, self.ids(), list(self.answers.values()))
        if answer.WhichOneof("kind") == "promise":
            try:
                promise = rounds_pb2.Reply.FromString(data).promise
            except DecodeError:
                return data
            # A voter that hides or invents what it accepted can fork the run: who votes is a question of admission.
            is_other = (promise.accepted_ballot, promise.accepted_entry) != (answer.promise.accepted_ballot, answer.promise.accepted_entry)
            if is_other and (not promise.accepted_entry or accept.judged(self.swarm.newest(), promise.accepted_entry)[0] is not None):
                return answer.SerializeToString()
        return data

    def bent(self, frames: list[bytes], how: str) -> list[bytes | None]:
        """A hostile stream in place of a true one; None: silence from here on."""
        half = frames[: max(1, len(frames) // 2)]
        return {
            "cut": half,
            "silence": [*half, None],
            "empty": [b""] * 50 + frames,
            "extra": [*frames, frames[-1]],
            "long": [frames[0] + bytes(1000), *frames[1:]],
            "flip": [*frames[:-1], bytes([frames[-1][0] ^ 1]) + frames[-1][1:]] if frames[-1] else [b"x"],
            "short": [*frames[:-1], frames[-1][:-1]],
            "none": [],
        }[how]  # type: ignore[return-value]

    # -- the end ----------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """All cases are answered; the swarm still commits syncs, on every member, with equal hashes."""
        await asyncio.gather(*self.running)
        goal = self.swarm.newest().state.sync + 2
        await self.swarm.until(lambda: all(m.state.sync >= goal for m in self.swarm.members()), PATIENCE_S, f"sync {goal} on all", 0.2)
        assert len(self.swarm.members()) == self.num_members
        self.swarm.watch.check_tensors()
        self.swarm.check()
        for member in self.swarm.members():
            assert len(member.beats) <= MEMBERS + bounds.MAX_NEWCOMERS and len(member.chases.vain) <= MEMBERS
            assert member.attempt <= bounds.MAX_ATTEMPT_JUMP * len(self.running)
        await self.swarm.close()


class _Rest:
    """What is left of a coroutine that was sent None once, to be awaited."""

    def __init__(self, call: Coroutine[Any, Any, bytes], waits_for: Any) -> None:
        self._call, self._waits_for = call, waits_for

    def __await__(self) -> Generator[Any, Any, bytes]:
        waits_for = self._waits_for
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                step = lambda error=error: self._call.throw(error)  # noqa: E731
            else:
                step = lambda sent=sent: self._call.send(sent)  # noqa: E731
            try:
                waits_for = step()
            except StopIteration as done:
                return bytes(done.value)


def standing(member: Any) -> tuple[Any, ...]:
    """What no refused message may move."""
    return (
        member.state, member.hash, member.ports.store.vote, member.attempt, member.behind, member.own, member.waiting_for,
        dict(member.book.offers), dict(member.beats), dict(member.marks), dict(member.chases.vain), len(member.history),
    )  # fmt: skip


def _is_a_voters_lie(member: Any, sender: str, data: bytes) -> bool:
    """A leader that proposes two good entries in one ballot can fork the run: who votes is a question of admission."""
    try:
        message = rounds_pb2.Request.FromString(data)
    except DecodeError:
        return False
    return message.WhichOneof("kind") == "proposal" and accept.judged(member, message.proposal.entry)[0] is not None
