"""Ctrl-C and SIGTERM at every stage of a node's life: gone within 5 s, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from decentra.identity.invite import Entrance, Invite, encode

GONE_WITHIN_S = 5.0
STAGE_WITHIN_S = 60.0

RUN = """
[run]
name = "small"
start_members = {members}
eval_samples = 4
[run.model]
dim = 32
num_layers = 1
num_heads = 2
num_kv_heads = 2
[run.data]
vocab_size = 512
context = 32
max_text_bytes = {text_bytes}
[run.outer]
inner_steps = 5
[node]
dht = {dht}
"""


class Daemon:
    """A `decentra node` in a session of its own, with a temporary folder of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.state = folder, folder / "state"
        self.temporary = Path(tempfile.mkdtemp(prefix="dc-", dir="/tmp"))
        self.log = folder / "node.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "decentra.cli.main", "node", *arguments, "--state", str(self.state)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                start_new_session=True,
            )

    def wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STAGE_WITHIN_S
        while not holds():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def interrupt(self, number: signal.Signals) -> int:
        """Ctrl-C goes to everybody in the terminal, SIGTERM to one process; the exit code."""
        start = time.monotonic()
        if number is signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = self.process.wait(30)
        took = time.monotonic() - start
        assert took < GONE_WITHIN_S, f"{took:.1f} s: {self.log.read_text()}"
        assert not self.said("Traceback"), self.log.read_text()
        return code

    def remains(self) -> list[str]:
        """Processes that know this daemon's folders, and what is in the temporary one."""
        deadline = time.monotonic() + 3.0
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _left(self) -> list[str]:
        found = [str(path) for path in self.temporary.iterdir()]
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"TMPDIR={self.temporary}".encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)


Launch = Callable[..., Daemon]


@pytest.fixture()
def launch(tmp_path: Path) -> Iterator[Launch]:
    started: list[Daemon] = []

    def start(*arguments: str, **settings: object) -> Daemon:
        (tmp_path / "run.toml").write_text(RUN.format(**{"members": 1, "text_bytes": 400_000, "dht": "false", **settings}))
        started.append(Daemon(tmp_path, *arguments))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_text_is_prepared(launch: Launch, tmp_path: Path, number: signal.Signals) -> None:
    daemon = launch("--run", "run.toml", "--cache", "cache", text_bytes=64_000_000)
    daemon.wait_for(lambda: any((tmp_path / "cache").glob("*")))
    assert daemon.interrupt(number) == 1
    assert daemon.said("decentra: stopped before this node took part")
    assert daemon.remains() == [] and not daemon.state.exists()
    assert not list((tmp_path / "cache").rglob("*.tmp")) and not list((tmp_path / "cache").rglob("data.json"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_it_joins(launch: Launch, number: signal.Signals) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(STAGE_WITHIN_S)
        entrance = Entrance(f"127.0.0.1:{silent.getsockname()[1]}")
        daemon = launch("--join", encode(Invite(b"r" * 16, b"f" * 32, b"t" * 16, (), (entrance,))))
        connection, _ = silent.accept()
        with connection:
            assert daemon.interrupt(number) == 1
    assert daemon.said("decentra: stopped before this node took part")
    assert daemon.remains() == [] and not daemon.state.exists()


def test_while_it_waits_for_members(launch: Launch) -> None:
    daemon = launch("--run", "run.toml", members=3)
    daemon.wait_for(lambda: daemon.said("join string: "))
    assert daemon.interrupt(signal.SIGTERM) == 0
    assert daemon.remains() == [] and (daemon.state / "summary.json").exists()


def test_while_it_trains_with_the_dht(launch: Launch) -> None:
    daemon = launch("--run", "run.toml", dht="true")
    log = daemon.state / "log.bin"
    daemon.wait_for(lambda: log.exists() and log.stat().st_size > 1500)
    assert daemon.interrupt(signal.SIGINT) == 0
    assert daemon.remains() == []


def test_before_the_first_line_of_ours_is_read(launch: Launch) -> None:
    daemon = launch("--run", "run.toml")
    modules = Path(f"/proc/{daemon.process.pid}/maps")
    daemon.wait_for(lambda: "libtorch" in modules.read_text())
    assert daemon.interrupt(signal.SIGTERM) == 1
    assert daemon.remains() == [] and not daemon.state.exists()
