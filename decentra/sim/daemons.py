"""A node daemon of this machine as a process: killed, stopped, woken."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Daemon:
    """One node daemon of this machine, in its present life."""

    number: int
    state: Path
    log: Path
    process: subprocess.Popen[bytes]
    killed: bool = False
    asleep: bool = False

    def running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def peer(self) -> str:
        """Its peer id; "" before it has one."""
        path = self.state / "peer.txt"
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: it neither runs nor ends, and its connections stay."""
        self.asleep = True
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self.asleep = False
        self.process.send_signal(signal.SIGCONT)


def last_line(path: Path) -> str:
    """The last line of a log, or that there is none."""
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it is empty"
