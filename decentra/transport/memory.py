"""Transport within one process, for simulations and tests of other rooms: real bytes, any loop's clock, no sockets.

Links behave as TCP does: what a cut link holds back arrives when it heals, and the caller's timeout ends the wait.
A peer that is gone answers nothing: its callers learn so after one round trip, calls in flight at once. One that cannot
be dialled is reached over the connection that it holds to its caller, if that can be dialled.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

from decentra.errors import PeerError, PeerFault, PeerTimeout, PeerUnreachable, RefusedError, SetupError
from decentra.transport.base import FRAME_BYTES, MAX_CALL_BYTES, Contact, Handler
from decentra.transport.shaper import Shaper
from decentra.transport.weather import Weather
from decentra.types import PeerId

logger = logging.getLogger(__name__)


class MemoryNetwork:
    """The peers of one process, the links between them that are cut, and the weather on the others."""

    def __init__(self, weather: Weather | None = None) -> None:
        self.weather = weather
        self._transports: dict[PeerId, MemoryTransport] = {}
        self._cuts: dict[tuple[PeerId, PeerId], asyncio.Event] = {}

    def cut(self, sender: PeerId, receiver: PeerId) -> None:
        """Hold back all that `sender` sends to `receiver`, one way."""
        self._cuts.setdefault((sender, receiver), asyncio.Event())

    def heal(self, sender: PeerId, receiver: PeerId) -> None:
        """Undo `cut`; what was held back arrives now."""
        healed = self._cuts.pop((sender, receiver), None)
        if healed is not None:
            healed.set()

    def remove(self, peer: PeerId) -> None:
        """Kill a peer: calls to and from it end with PeerUnreachable, what it was answering is cancelled."""
        transport = self._transports.pop(peer, None)
        if transport is not None:
            transport.stop_nowait()

    def add(self, transport: MemoryTransport) -> None:
        """Enter a transport. Raises SetupError if its peer has one already."""
        if transport.peer in self._transports:
            raise SetupError(f"peer {transport.peer[:8]} has a memory transport already; remove it from the network first")
        self._transports[transport.peer] = transport

    def find(self, peer: PeerId) -> MemoryTransport | None:
        """The living transport of a peer."""
        return self._transports.get(peer)

    async def passage(self, sender: PeerId, receiver: PeerId) -> None:
        """Wait until the link is whole and what is sent has crossed it; lets others run at least once."""
        await asyncio.sleep(0 if self.weather is None else self.weather.delay_s(sender, receiver))
        while (healed := self._cuts.get((sender, receiver))) is not None:
            await healed.wait()


class MemoryTransport:
    """`Transport` of one peer on a `MemoryNetwork`. `handler` may be set later; until then callers are refused.

    address: where it listens; callers must know it. "" is reached by whatever they know. What it answers runs in the context
    in which it was made: a simulated process that is frozen answers nothing.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        peer: PeerId,
        handler: Handler | None = None,
        shaper: Shaper | None = None,
        dialable: bool = True,
        address: str = "",
    ) -> None:
        self.peer = peer
        self.dialable = dialable
        self.address = address
        self.context = contextvars.copy_context()
        self.handler = handler
        self._network = network
        self._shaper = shaper
        self._contacts: dict[PeerId, Contact] = {}
        # Ordered, for simulations repeat: a set of tasks is ordered by address.
        self._serving: dict[asyncio.Task[Any], None] = {}
        self._closed = False
        self._bytes_up = 0
        self._bytes_down = 0
        network.add(self)

    async def call(self, peer: PeerId, request: bytes, timeout_s: float) -> bytes:
        """See `Transport.call`."""
        if len(request) > MAX_CALL_BYTES:
            raise PeerFault(peer, f"a request of {len(request)} bytes is over the limit of {MAX_CALL_BYTES}")
        try:
            async with asyncio.timeout(timeout_s):
                server = await self._reach(peer, request)
                if self._network.weather is not None and self._network.weather.doubles(self.peer, peer):
                    server.answer_again(self.peer, request)
                reply: bytes = await self._at(server, server.answer(self.peer, request))
                await self._cross(peer, self.peer, peer)
                await self.arrive(reply)
                return reply
        except TimeoutError:
            raise PeerTimeout(peer, f"no reply within {timeout_s:g} s") from None

    async def pull(self, peer: PeerId, request: bytes, idle_timeout_s: float) -> AsyncIterator[bytes]:
        """See `Transport.pull`."""
        frames = self._arriving(peer, request)
        if self._shaper is not None:
            frames = self._shaper.receive_frames(frames)
        async with aclosing(frames):  # type: ignore[type-var]
            while True:
                try:
                    async with asyncio.timeout(idle_timeout_s):
                        frame = await anext(frames)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise PeerTimeout(peer, f"no frame for {idle_timeout_s:g} s") from None
                self._bytes_down += len(frame)
                yield frame

    def connect(self, contact: Contact) -> None:
        """See `Transport.connect`."""
        self._contacts[contact.peer] = contact

    def counters(self) -> tuple[int, int]:
        """(bytes up, bytes down) so far."""
        return self._bytes_up, self._bytes_down

    async def close(self) -> None:
        """Leave the network; what this node was answering is cancelled and awaited."""
        serving = set(self._serving) - {asyncio.current_task()}
        if self._network.find(self.peer) is self:
            self._network.remove(self.peer)
        self.stop_nowait()
        if serving:
            await asyncio.wait(serving)

    def stop_nowait(self) -> None:
        """Die at once: refuse all calls, cancel what is being answered."""
        self._closed = True
        for task in list(self._serving):
            task.cancel()

    def serve(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as this node's own task."""
        task = asyncio.get_running_loop().create_task(work, context=self.context.copy())
        self._serving[task] = None
        task.add_done_callback(self._served)
        return task

    def answer_again(self, sender: PeerId, request: bytes) -> None:
        """Handle a request once more; its sender, which waits for the first answer, never sees this one."""
        self.serve(self.answer(sender, request))

    def _served(self, task: asyncio.Task[Any]) -> None:
        self._serving.pop(task, None)
        if not task.cancelled():
            task.exception()  # seen by the caller, where there still is one

    async def answer(self, sender: PeerId, request: bytes) -> bytes:
        """Serving side of a call, from the request's arrival to the reply's at the other end's link."""
        await self.arrive(request)
        try:
            reply = await self._handler().on_call(sender, request)
        except RefusedError as error:
            raise PeerFault(self.peer, str(error)) from error
        except PeerError as error:
            raise PeerFault(self.peer, f"failed on {error}") from error
        except Exception as error:
            logger.exception("a call of %s failed here", sender[:8])
            raise PeerFault(self.peer, f"failed internally ({type(error).__name__})") from error
        if len(reply) > MAX_CALL_BYTES:
            raise PeerFault(self.peer, f"its reply of {len(reply)} bytes is over the limit of {MAX_CALL_BYTES}")
        self._bytes_up += len(reply)
        if self._shaper is not None:
            await self._shaper.send_control(len(reply))
        return reply

    async def stream(self, sender: PeerId, request: bytes, wire: asyncio.Queue[bytes | Exception | None]) -> None:
        """Serving side of a pull: put each frame on the wire when it has reached the other end's link."""
        await self.arrive(request)
        try:
            frames = self._handler().on_pull(sender, request)
            if self._shaper is not None:
                frames = self._shaper.send_frames(frames)
            async with aclosing(frames):  # type: ignore[type-var]
                async for frame in frames:
                    if len(frame) > FRAME_BYTES:
                        raise PeerFault(self.peer, f"its frame of {len(frame)} bytes is over the limit of {FRAME_BYTES}")
                    await self._network.passage(self.peer, sender)
                    if self._network.weather is not None:
                        frame = self._network.weather.spoiled(self.peer, sender, frame)
                    self._bytes_up += len(frame)
                    await wire.put(frame)
        except RefusedError as error:
            raise PeerFault(self.peer, str(error)) from error
        except PeerError as error:
            raise PeerFault(self.peer, error.reason if error.peer == self.peer else f"failed on {error}") from error
        except Exception as error:
            logger.exception("a pull of %s failed here", sender[:8])
            raise PeerFault(self.peer, f"failed internally ({type(error).__name__})") from error

    async def arrive(self, message: bytes) -> None:
        """Count a control message and bring it down this node's link."""
        self._bytes_down += len(message)
        if self._shaper is not None:
            await self._shaper.receive_control(len(message))

    def _handler(self) -> Handler:
        if self.handler is None:
            raise RefusedError("this node is still starting; ask again")
        return self.handler

    async def _reach(self, peer: PeerId, request: bytes) -> MemoryTransport:
        contact = self._contacts.get(peer)
        if contact is None:
            raise PeerUnreachable(peer, "no contact is known for it")
        if self._closed:
            raise PeerUnreachable(peer, "this node's transport is closed")
        if not contact.endpoints and not self._is_held_by(peer):
            raise PeerUnreachable(peer, "it cannot be dialled, and it holds no connection to this node")
        self._bytes_up += len(request)
        if self._shaper is not None:
            await self._shaper.send_control(len(request))
        await self._cross(self.peer, peer, peer)
        server = self._network.find(peer)
        moved = server is not None and contact.endpoints and server.address and server.address not in contact.endpoints
        if server is None or moved or (contact.endpoints and not server.dialable):
            await asyncio.sleep(self._shaper.delay_s if self._shaper is not None else 0)
            raise PeerUnreachable(peer, "nobody answers at its address")
        return server

    async def _cross(self, sender: PeerId, receiver: PeerId, other: PeerId) -> None:
        """Bring a control message over; one that arrives damaged breaks the connection to `other`, as under TLS."""
        await self._network.passage(sender, receiver)
        if self._network.weather is not None and self._network.weather.breaks(sender, receiver):
            raise PeerUnreachable(other, "the connection broke: a message arrived damaged")

    def _is_held_by(self, peer: PeerId) -> bool:
        """Whether a peer that cannot be dialled holds a connection to this node: it lives, knows it and can dial it."""
        holder = self._network.find(peer)
        if holder is None or holder.dialable or not self.dialable:
            return False
        contact = holder._contacts.get(self.peer)
        return contact is not None and bool(contact.endpoints)

    async def _arriving(self, peer: PeerId, request: bytes) -> AsyncIterator[bytes]:
        server = await self._reach(peer, request)
        wire: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(1)

        async def feed() -> None:
            end: Exception | None = None
            try:
                await self._at(server, server.stream(self.peer, request, wire))
            except Exception as error:
                end = error
            await wire.put(end)

        feeding = asyncio.get_running_loop().create_task(feed())
        try:
            while isinstance(item := await wire.get(), bytes):
                yield item
            if item is not None:
                raise item
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})

    async def _at(self, server: MemoryTransport, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` as the server's own task: it dies with the server, or with this caller."""
        task = server.serve(work)
        self._serving[task] = None
        try:
            await asyncio.wait({task})
        finally:
            self._serving.pop(task, None)
            # Not awaited: a server that is frozen does not keep its caller.
            task.cancel()
        if task.cancelled():
            raise PeerUnreachable(server.peer, "the connection broke")
        return task.result()
