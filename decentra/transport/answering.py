"""What a node answers, whoever dialled: its handler's words, within the limits, counted and brought over its link."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from decentra.errors import RefusedError
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES, Handler
from decentra.transport.shaper import Shaper
from decentra.types import PeerId

logger = logging.getLogger(__name__)


class Counters:
    """Payload bytes of one node so far."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0


class Answering:
    """Answers with a `Handler`; None refuses everybody. Raises RefusedError, and whatever a handler's bug raises."""

    def __init__(self, handler: Handler | None, shaper: Shaper | None, counters: Counters) -> None:
        self.handler = handler
        self._shaper = shaper
        self._counters = counters

    async def reply(self, sender: PeerId, request: bytes) -> bytes:
        """The reply to a call, once it has reached the other end's link."""
        await self._arrived(request)
        reply = await self._ready().on_call(sender, request)
        if len(reply) > MAX_CALL_BYTES:
            raise RefusedError(f"the reply of {len(reply)} bytes is over the limit of {MAX_CALL_BYTES}")
        self._counters.up += len(reply)
        if self._shaper is not None:
            await self._shaper.send_control(len(reply))
        return reply

    async def frames(self, sender: PeerId, request: bytes) -> AsyncGenerator[bytes, None]:
        """The frames of a pull, each once it has reached the other end's link."""
        await self._arrived(request)
        frames: AsyncIterator[bytes] = self._ready().on_pull(sender, request)
        if self._shaper is not None:
            frames = self._shaper.send_frames(frames)
        async with aclosing(frames):  # type: ignore[type-var]
            async for frame in frames:
                if len(frame) > FRAME_BYTES:
                    raise RefusedError(f"a frame of {len(frame)} bytes is over the limit of {FRAME_BYTES}")
                self._counters.up += len(frame)
                yield frame

    async def _arrived(self, request: bytes) -> None:
        if len(request) > MAX_CALL_BYTES:
            raise RefusedError(f"the request of {len(request)} bytes is over the limit of {MAX_CALL_BYTES}")
        self._counters.down += len(request)
        if self._shaper is not None:
            await self._shaper.receive_control(len(request))

    def _ready(self) -> Handler:
        if self.handler is None:
            raise RefusedError("this node is still starting; ask again")
        return self.handler


def reason_of(sender: PeerId, error: Exception) -> str:
    """What the asker reads of an error; one that is not a refusal is our own mistake and is logged."""
    if isinstance(error, RefusedError):
        return str(error)
    logger.error("a request of %s failed here", sender[:8], exc_info=error)
    return f"failed internally ({type(error).__name__})"
