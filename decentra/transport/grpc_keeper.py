"""A node that cannot be dialled: it holds a reverse stream open to a peer, and answers what comes over it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

import grpc

from decentra.errors import PeerError
from decentra.transport.answering import Answering, reason_of
from decentra.transport.grpc_link import PeerLink
from decentra.transport.grpc_reverse import DATA, END, NUMBER, REFUSED

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
MAX_CALLS, MAX_PULLS = 256, 64
"""Requests of one peer answered at a time; beyond that its stream is not read, so the peer's requests wait there."""

_SpokenFor = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""What writing to a call raises that has ended: nobody waits for the answer any more."""


class StreamKeeper:
    """Keeps one stream, for calls or (`bulk`) for pulls, open to the peer of a link; again and again until `close`."""

    def __init__(self, link: PeerLink, answering: Answering, bulk: bool) -> None:
        self._link = link
        self._answering = answering
        self._bulk = bulk
        self._room = asyncio.Semaphore(MAX_PULLS if bulk else MAX_CALLS)
        self._answers: set[asyncio.Task[None]] = set()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Let go of the stream; what is being answered is cancelled."""
        tasks = {self._keeping, *self._answers}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _keep(self) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while True:
            begun_s = loop.time()
            try:
                async with aclosing(self._link.requests(self._bulk)) as requests:
                    async for message in requests:
                        await self._room.acquire()
                        self._answer_aside(message)
            except PeerError as error:
                logger.debug("no reverse stream: %s", error)
            if loop.time() - begun_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _answer_aside(self, message: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._answers.add(task)
        task.add_done_callback(self._has_answered)

    def _has_answered(self, task: asyncio.Task[None]) -> None:
        self._answers.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an answer to %s failed here", self._link.contact.peer[:8], exc_info=error)

    async def _answer(self, message: bytes) -> None:
        if len(message) < NUMBER.size:
            return
        task = asyncio.current_task()
        assert task is not None
        try:
            call = self._link.answer(NUMBER.unpack_from(message)[0], self._bulk)
        except PeerError:
            return
        # The asker ends the call when it has its answer, or wants it no longer: then this task ends where it stands.
        call.add_done_callback(lambda _: task.cancel())
        try:
            await self._write(call, message[NUMBER.size :])
            await call.done_writing()
            await call
        except _SpokenFor:
            pass
        finally:
            call.cancel()

    async def _write(self, call: grpc.aio.StreamUnaryCall[bytes, bytes], request: bytes) -> None:
        sender = self._link.contact.peer
        try:
            if not self._bulk:
                await call.write(DATA + await self._answering.reply(sender, request))
                return
            async with aclosing(self._answering.frames(sender, request)) as frames:
                async for frame in frames:
                    await call.write(DATA + frame)
            await call.write(END)
        except _SpokenFor:
            raise
        except Exception as error:
            await call.write(REFUSED + reason_of(sender, error).encode())
