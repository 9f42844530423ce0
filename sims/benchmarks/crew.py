"""Processes of a benchmark, one a peer, that speak JSON lines with the one that started them, and meet at its barriers."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import psutil


class CrewError(Exception):
    """A process died, or did not answer in time: `what` says which, the text also how what it wrote ends."""

    def __init__(self, what: str, wrote: str) -> None:
        super().__init__(f"{what}; it wrote: {wrote}")
        self.what = what


class Crew:
    """Modules with their arguments, each in its place: a network namespace, or "" for this machine's own."""

    def __init__(self, commands: Sequence[Sequence[str]], places: Sequence[str], environment: dict[str, str]) -> None:
        self._processes = []
        for command, place in zip(commands, places, strict=True):
            inside = ["ip", "netns", "exec", place] if place else []
            process = subprocess.Popen(
                [*inside, sys.executable, "-m", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                start_new_session=True,  # what it starts ends with it, also where it has ended first
            )
            self._processes.append(process)
        self._buffers = [b"" for _ in commands]
        self._complaints = [b"" for _ in commands]
        self._open: list[tuple[list[bytes], int, Any]] = []
        for index, process in enumerate(self._processes):
            self._open += [(self._buffers, index, process.stdout), (self._complaints, index, process.stderr)]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def tell(self, message: Any) -> None:
        """One line to each."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # a process that died is found when it is to answer
                process.stdin.write(json.dumps(message).encode() + b"\n")
                process.stdin.flush()

    def hear(self, timeout_s: float) -> list[Any]:
        """The next line of each. Raises CrewError."""
        deadline = time.monotonic() + timeout_s
        while any(b"\n" not in buffer for buffer in self._buffers):
            self._read(deadline, timeout_s)
        lines = []
        for index, buffer in enumerate(self._buffers):
            line, self._buffers[index] = buffer.split(b"\n", 1)
            lines.append(json.loads(line))
        return lines

    def _read(self, deadline: float, timeout_s: float) -> None:
        late = [index for index, buffer in enumerate(self._buffers) if b"\n" not in buffer]
        dead = next((index for index in late if self._processes[index].poll() is not None), None)
        pipes = {pipe: (kept, index) for kept, index, pipe in self._open}
        ready, _, _ = select.select(list(pipes), [], [], 0.5)
        for pipe in ready:
            kept, index = pipes[pipe]
            data = os.read(pipe.fileno(), 1 << 16)
            kept[index] += data
            if not data:
                self._open.remove((kept, index, pipe))
        if dead is not None and not ready:
            raise CrewError(f"process {dead} died", self._last_words(dead))
        if time.monotonic() > deadline:
            raise CrewError(f"no answer of {', '.join(map(str, late))} for {timeout_s:.0f} s", self._last_words(late[0]))

    def _last_words(self, index: int) -> str:
        lines = self._complaints[index].decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-16:])[-1600:] or "nothing"

    def complaints(self) -> str:
        """What they have written to stderr so far."""
        return "\n".join(text.decode(errors="replace") for text in self._complaints)


class Captain:
    """The other end, in a process of the crew. Whatever else is printed there goes to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def say(self, message: Any) -> None:
        """One line to the one that started this process."""
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()

    def hear(self) -> Any:
        """The next line from there; the process ends when there is none any more."""
        line = sys.stdin.buffer.readline()
        if not line:
            os._exit(0)
        return json.loads(line)


def cpu_s() -> float:
    """CPU seconds of this process and of those that it started, so far."""
    me = psutil.Process()
    family = [process.cpu_times() for process in me.children(recursive=True)]
    return time.process_time() + sum(times.user + times.system for times in family)
