"""Machines of a test's own: network namespaces on one bridge, each with an address; all gone at the end."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import pytest

DROP_SYNS = Path(__file__).parent / "drop_syns.py"
_NUMBERS = itertools.count()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)


class World:
    """Namespaces NAME-0 (the bridge) and NAME-1 ... of machines 10.79.0.1 ... Use as a context; skips where there can be none."""

    def __init__(self, machines: int) -> None:
        self.name = f"dcnat{os.getpid()}x{next(_NUMBERS)}"
        self._machines = machines
        self._made: list[str] = []
        self._droppers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> World:
        if shutil.which("ip") is None or os.geteuid() != 0:
            pytest.skip("network namespaces need the command ip and root")
        try:
            self._make()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            self.__exit__(None, None, None)
            pytest.skip(f"network namespaces cannot be made here: {error} {error.stderr}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for dropper in self._droppers:
            dropper.communicate(timeout=10)
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10)

    def _make(self) -> None:
        for number in range(self._machines + 1):
            _ip("netns", "add", self.of(number))
            self._made.append(self.of(number))
            _ip("-n", self.of(number), "link", "set", "lo", "up")
        _ip("-n", self.of(0), "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.of(0), "link", "set", "bridge", "up")
        for number in range(1, self._machines + 1):
            there, here = self.of(number), self.of(0)
            _ip("-n", here, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth", "netns", there)
            _ip("-n", here, "link", "set", f"to{number}", "master", "bridge")
            _ip("-n", here, "link", "set", f"to{number}", "up")
            _ip("-n", there, "addr", "add", f"{self.address(number)}/24", "dev", "eth")
            _ip("-n", there, "link", "set", "eth", "up")

    def of(self, machine: int) -> str:
        """Name of a machine's namespace."""
        return f"{self.name}-{machine}"

    def address(self, machine: int) -> str:
        """Its address on the bridge."""
        return f"10.79.0.{machine}"

    def command(self, machine: int, *words: str) -> list[str]:
        """What runs `words` on a machine."""
        return ["ip", "netns", "exec", self.of(machine), *words]

    def inner_address(self, machine: int) -> str:
        """An address of the machine to which nobody else has a route: it can dial out, and not be dialled there."""
        address = f"10.80.0.{machine}"
        _ip("-n", self.of(machine), "addr", "add", f"{address}/32", "dev", "lo")
        return address

    def drop_syns(self, machine: int) -> bool:
        """Have a machine lose what asks it for a new TCP connection. False where this kernel takes no XDP program."""
        words = self.command(machine, sys.executable, str(DROP_SYNS), "eth")
        dropper = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._droppers.append(dropper)
        assert dropper.stdout is not None
        return dropper.stdout.readline() == b"dropping\n"

    def can_dial(self, caller: int, address: str, port: int) -> bool:
        """Whether a TCP connection from one machine to an address opens within a second."""
        code = f"import socket; socket.create_connection(({address!r}, {port}), 1)"
        done = subprocess.run(self.command(caller, sys.executable, "-c", code), capture_output=True, timeout=20)
        return done.returncode == 0
