"""Places for the peers of a benchmark: this machine's loopback, or network namespaces on a bridge, shaped both ways by tbf."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time
from dataclasses import dataclass

from decentra.config import parse_link
from sims.benchmarks.crew import Captain, Crew

BURSTS = {"100mbit": "64kb", "1000mbit": "256kb"}
RAW_BYTES = {"100mbit": 10_000_000, "1000mbit": 100_000_000, "loopback": 1_500_000_000}


@dataclass(frozen=True, slots=True)
class Places:
    """Where peer i runs: its namespace ("" none), its address and its interface."""

    namespaces: tuple[str, ...]
    addresses: tuple[str, ...]
    interface: str


class Link:
    """`count` places joined by links of a rate such as "100mbit", or by "loopback". Needs root for namespaces, which it removes."""

    def __init__(self, rate: str, count: int) -> None:
        self._rate, self._count = rate, count
        self._name = f"dc{os.getpid() % 100000}"

    def __enter__(self) -> Places:
        if self._rate == "loopback":
            return Places(("",) * self._count, ("127.0.0.1",) * self._count, "lo")
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        names = tuple(f"{self._name}n{i}" for i in range(self._count))
        return Places(names, tuple(f"10.77.0.{i + 1}" for i in range(self._count)), "e0")

    def _make(self) -> None:
        bridge = f"{self._name}b"
        _run(f"ip link add {bridge} type bridge", f"ip link set {bridge} up")
        limit = f"root tbf rate {self._rate} burst {BURSTS.get(self._rate, '256kb')} latency 400ms"
        for i in range(self._count):
            inside, outside = f"{self._name}n{i}", f"{self._name}v{i}"
            _run(
                f"ip netns add {inside}",
                f"ip link add {outside} type veth peer name e0 netns {inside}",
                f"ip link set {outside} master {bridge} up",
                f"ip -n {inside} addr add 10.77.0.{i + 1}/24 dev e0",
                f"ip -n {inside} link set e0 up",
                f"ip -n {inside} link set lo up",
                f"ip netns exec {inside} tc qdisc add dev e0 {limit}",
                f"tc qdisc add dev {outside} {limit}",
            )

    def __exit__(self, *_: object) -> None:
        if self._rate == "loopback":
            return
        for i in range(self._count):
            subprocess.run(["ip", "link", "del", f"{self._name}v{i}"], capture_output=True)
            subprocess.run(["ip", "netns", "del", f"{self._name}n{i}"], capture_output=True)
        subprocess.run(["ip", "link", "del", f"{self._name}b"], capture_output=True)


def _run(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True)


def nominal_bytes_per_s(rate: str) -> float:
    """What full TCP segments carry on a link of that rate: 1448 of 1514 bytes; 0 of loopback. Short measurements miss it by a tenth."""
    return 0.0 if rate == "loopback" else parse_link(rate)[0] * 1448 / 1514


def raw_bytes_per_s(rate: str, places: Places) -> float:
    """Both ways at once over one plain TCP connection between the first two places, bytes a second each way."""
    port = str(random.randint(20000, 29000))
    commands = [["sims.benchmarks.links", side, places.addresses[0], port, str(RAW_BYTES[rate])] for side in ("listen", "dial")]
    with Crew(commands, places.namespaces[:2], {}) as crew:
        return min(crew.hear(60.0))


def _measure(side: str, address: str, port: int, num_bytes: int) -> float:
    if side == "listen":
        with socket.create_server((address, port)) as server:
            connection = server.accept()[0]
    else:
        connection = _dial(address, port)
    data = memoryview(bytearray(64 << 20))  # larger than the caches, as tensors are

    def send() -> None:
        left = num_bytes
        while left:
            left -= connection.send(data[: min(4 << 20, left)])

    sending, start = threading.Thread(target=send), time.perf_counter()
    sending.start()
    buffer, got = memoryview(bytearray(4 << 20)), 0
    while got < num_bytes:
        got += connection.recv_into(buffer[: min(len(buffer), num_bytes - got)])
    sending.join()
    return num_bytes / (time.perf_counter() - start)


def _dial(address: str, port: int) -> socket.socket:
    for _ in range(200):
        try:
            return socket.create_connection((address, port))
        except OSError:
            time.sleep(0.05)
    raise OSError(f"nobody listens at {address}:{port}")


if __name__ == "__main__":
    import sys

    captain = Captain()
    captain.say(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
