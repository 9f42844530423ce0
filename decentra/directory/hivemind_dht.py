"""Directory on hivemind's DHT: key = run id, subkey = peer id, value = signed record, gone 60 s after its last renewal.

`DHTNode` and `P2P` run in the caller's own event loop: the forked `hivemind.DHT` leaves orphans. hivemind is imported
when the first node starts, in a thread, since it brings torch and takes seconds. The p2pd process ends with `close`,
and by itself when this process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import shutil
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from decentra.directory.record_order import NewestRecords, RecordReader, read_unverified
from decentra.errors import SetupError
from decentra.types import PeerId

logger = logging.getLogger(__name__)

EXPIRES_S = 60.0
RENEW_S = 20.0
START_FLOOR_S = 8.0
START_RATIO = 5
"""p2pd and the DHT may take as many times as long to start as hivemind took to import: on a busy machine all three are slow."""
ASK_TIMEOUT_S = 10.0

T = TypeVar("T")


class BootstrapNode:
    """A node of the DHT without a record: a rendezvous for others, and what `HivemindDirectory` stands on."""

    def __init__(self, p2p: Any, dht: Any, addresses: tuple[str, ...]) -> None:
        self._p2p = p2p
        self._addresses = addresses
        self.dht = dht

    @classmethod
    async def start(
        cls,
        initial_peers: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        announce: str = "",
        client: bool = False,
        sockets: Path | None = None,
    ) -> BootstrapNode:
        """Start p2pd on host:port and enter the DHT of `initial_peers` (none: found one).

        announce: IP or DNS name that others can dial, where `host` is not; needs a fixed port. client: listen to nobody,
        store and find only, for a node that cannot be dialled. sockets: where p2pd's sockets get their folder; None: in
        TMPDIR. Raises SetupError: no p2pd here, port taken, or no initial peer answers.
        """
        if client and not initial_peers:
            raise SetupError("a node that cannot be dialled cannot be the first of a DHT")
        begun_s = time.monotonic()
        module = await _load()
        limit_s = max(START_FLOOR_S, START_RATIO * (time.monotonic() - begun_s))
        p2p = await _start_p2p(module, initial_peers, _Listen(host, port, announce, client), sockets, limit_s)
        try:
            dht = await _enter(p2p, initial_peers, client, limit_s)
            visible = [] if client else await p2p.get_visible_maddrs()
            return cls(p2p, dht, _ordered([str(address) for address in visible]))
        except BaseException:
            await p2p.shutdown()
            shutil.rmtree(p2p.socket_folder, ignore_errors=True)
            raise

    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses "/ip4/HOST/tcp/PORT/p2p/ID" by which others enter, the widest reaching first."""
        return self._addresses

    @property
    def alive(self) -> bool:
        """Whether p2pd still runs."""
        child = self._p2p._child
        return bool(self._p2p.is_alive and child is not None and child.returncode is None)

    async def close(self) -> None:
        """Leave the DHT and end p2pd."""
        try:
            async with asyncio.timeout(START_FLOOR_S):
                await self.dht.shutdown()
        except Exception as error:
            logger.debug("the DHT node did not leave in order: %s", error)
        finally:
            await self._p2p.shutdown()
            shutil.rmtree(self._p2p.socket_folder, ignore_errors=True)


class HivemindDirectory:
    """`Directory` on a DHT node, which it owns."""

    def __init__(self, node: BootstrapNode, run_id: bytes, reader: RecordReader = read_unverified) -> None:
        self._node = node
        self._key = run_id.hex()
        self._reader = reader
        self._own_record = b""
        self._own_peer: PeerId = ""
        self._learned = NewestRecords(reader)
        self._renewing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        run_id: bytes,
        initial_peers: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        announce: str = "",
        client: bool = False,
        reader: RecordReader = read_unverified,
        sockets: Path | None = None,
    ) -> HivemindDirectory:
        """Enter the DHT for a run; arguments and errors as of `BootstrapNode.start`."""
        node = await BootstrapNode.start(initial_peers, host=host, port=port, announce=announce, client=client, sockets=sockets)
        return cls(node, run_id, reader)

    @property
    def alive(self) -> bool:
        """Whether p2pd still runs; if not, records are neither renewed nor found."""
        return self._node.alive

    async def announce(self, record: bytes) -> None:
        """See `Directory.announce`. Renewed every RENEW_S until `close`. Raises ValueError for no record."""
        self._own_peer, _ = self._reader(record)
        self._own_record = record
        await self._store()
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def records(self) -> dict[PeerId, bytes]:
        """See `Directory.records`."""
        newest = NewestRecords(self._reader)
        for record in (self._own_record, *self._learned.records().values()):
            if record:
                newest.learn(record)
        found = await self._try("read records", lambda: self._node.dht.get(self._key, latest=True))
        values = found.value if found is not None else {}
        # Anyone may write any value under any subkey, so each is only what its own bytes say.
        for held in values.values() if isinstance(values, dict) else ():
            if isinstance(held.value, bytes):
                newest.learn(held.value)
        return newest.records()

    def learn(self, record: bytes) -> bool:
        """See `Directory.learn`: kept beside what the DHT holds."""
        return self._learned.learn(record)

    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses of this node of the DHT; none where it is a client."""
        return self._node.addresses()

    async def close(self) -> None:
        """Stop renewing and leave the DHT; the record expires there by itself."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        await self._node.close()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._store()

    async def _store(self) -> None:
        from hivemind.utils.timed_storage import get_dht_time

        expires_s = get_dht_time() + EXPIRES_S
        store = self._node.dht.store
        stored = await self._try(
            "store this node's record", lambda: store(self._key, self._own_record, expires_s, subkey=self._own_peer)
        )
        if stored is False:
            logger.warning("no node of the DHT took this node's record; trying again in %g s", RENEW_S)

    async def _try(self, what: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The DHT is a help, not a need, once peers know each other: its failures are logged, never raised."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await ask()
        except Exception as error:
            reason = "p2pd has ended" if not self._node.alive else f"{type(error).__name__}: {error}"
            logger.warning("cannot %s in the DHT: %s", what, reason)
            return None


async def _load() -> Any:
    try:
        return await asyncio.to_thread(importlib.import_module, "hivemind.p2p")
    except Exception as error:
        raise SetupError(
            f"the DHT is not available here: hivemind cannot be imported ({error}); use gRPC endpoints (dht = false)"
        ) from error


@dataclass(frozen=True, slots=True)
class _Listen:
    """Where p2pd listens; `client`: nowhere."""

    host: str
    port: int
    announce: str
    client: bool

    def options(self) -> dict[str, Any]:
        """For P2P.create."""
        if self.client:
            return {"no_listen": True, "nat_port_map": False, "auto_nat": False}
        local = self.host.startswith("127.") or self.host in ("::1", "localhost")
        return {
            "host_maddrs": [_multiaddr("127.0.0.1" if self.host == "localhost" else self.host, self.port)],
            "announce_maddrs": [_multiaddr(self.announce, self.port)] if self.announce else None,
            "nat_port_map": not local,
            "auto_nat": not local,
        }


async def _start_p2p(module: Any, initial_peers: Sequence[str], listen: _Listen, sockets: Path | None, limit_s: float) -> Any:
    if listen.announce and not listen.port:
        raise SetupError("announcing an address needs a fixed dht_port, not 0; choose one and open it in the firewall")
    for address in initial_peers:
        if not address.startswith("/") or "/p2p/" not in address:
            raise SetupError(f"DHT address {address!r} cannot be read; write /ip4/HOST/tcp/PORT/p2p/ID, as bootstrap prints it")
    if not listen.client:
        _check_port_is_free(listen.host, listen.port)
    folder = _new_folder(sockets)
    # p2pd and its client meet on sockets that hivemind puts into /tmp and leaves there: a folder of our own goes with us.
    private: Any = type("P2P", (module.P2P,), {"_UNIX_SOCKET_PREFIX": f"/unix{folder}/", "socket_folder": folder})
    creating = asyncio.get_running_loop().create_task(
        private.create(
            initial_peers=list(initial_peers) or None,
            startup_timeout=limit_s,
            **listen.options(),
        )
    )
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        # Cancelled inside, create() would leave its p2pd to run: let it finish, then end it.
        await asyncio.wait({creating})
        if creating.exception() is None:
            await creating.result().shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        if "bootstrap peers" in str(error) or (initial_peers and "seconds" in str(error)):
            raise SetupError(f"no DHT node answers at {', '.join(initial_peers)}; is it running, and reachable from here?") from error
        raise SetupError(f"the DHT is not available here: {error}; use gRPC endpoints (dht = false)") from error


def _new_folder(sockets: Path | None) -> str:
    if sockets is None:
        return tempfile.mkdtemp(prefix="decentra-dht-")
    # A node that turns out to be hidden enters the DHT a second time, while the first may not have gone yet.
    for number in range(10):
        with contextlib.suppress(FileExistsError):
            (sockets / f"dht{number}").mkdir()
            return str(sockets / f"dht{number}")
    raise SetupError(f"{sockets} holds ten folders of the DHT; stop what still uses them")


def _check_port_is_free(host: str, port: int) -> None:
    # p2pd listens with SO_REUSEPORT: it would share a taken port in silence and lose half of what comes in.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                f"the DHT cannot listen on {host}:{port} ({error.strerror}); choose another dht_port, or 0 for any free one"
            ) from error


async def _enter(p2p: Any, initial_peers: Sequence[str], client: bool, limit_s: float) -> Any:
    node = importlib.import_module("hivemind.dht.node")
    try:
        async with asyncio.timeout(limit_s):
            return await node.DHTNode.create(p2p, initial_peers=list(initial_peers) or None, strict=False, client_mode=client)
    except Exception as error:
        where = ", ".join(initial_peers) or "this node"
        raise SetupError(f"no DHT node answers at {where} ({error or 'timeout'}); is it running, and reachable from here?") from error


def _multiaddr(host: str, port: int) -> str:
    if ":" in host:
        return f"/ip6/{host}/tcp/{port}"
    kind = "ip4" if host.replace(".", "").isdecimal() else "dns4"
    return f"/{kind}/{host}/tcp/{port}"


def _ordered(addresses: list[str]) -> tuple[str, ...]:
    """Loopback last: to a node elsewhere it names that node itself."""
    return tuple(sorted(addresses, key=lambda address: address.startswith(("/ip4/127.", "/ip6/::1/"))))
