"""`decentra`: one file a command; exit codes 0 done, 1 failed, 2 bad input with one sentence on stderr."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
from typing import Any, NoReturn

COMMANDS = {
    "demo": "the main job on this machine: a swarm of real node daemons on real text, one joins late, two are killed",
    "node": "found a swarm (--run RUN.toml), join one (--join STRING), or come back to one (--state DIR)",
    "bootstrap": "a rendezvous node for the DHT only; prints its address",
    "status": "what a swarm is doing, by its join string",
    "set": "wish other settings for a run; they change where a quorum of the members wishes the same",
    "tune": "which steps, overlap and codec would keep a swarm computing, by what its nodes measured",
    "sim": "simulate a swarm from a scenario file",
    "recover": "go on without members that are gone for good: an operator signs a view of those that stay",
    "train": "the trainer of a node, without a swarm",
    "eval": "held-out loss and bits per byte of what a run has agreed on, from a state directory",
    "generate": "what that model writes",
    "export": "that model as a Hugging Face folder",
    "replay": "reproduce the hash of any entry from a state directory, offline",
}
HIDDEN = ("trainer", "text")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. `arguments` default to those of this process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: decentra COMMAND [OPTIONS]     (decentra COMMAND --help shows options and an example)\n")
        for name, does in COMMANDS.items():
            print(f"  {name:<10} {does}")
        return 0 if arguments else 2
    if arguments[0] not in (*COMMANDS, *HIDDEN):
        return _say(f"unknown command {arguments[0]!r}; known: {', '.join(COMMANDS)}", 2)
    if threading.current_thread() is not threading.main_thread():
        return _run(arguments)
    former = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(arguments)
    finally:
        signal.signal(signal.SIGTERM, former)


def _run(arguments: list[str]) -> int:
    try:
        from decentra.errors import DecentraError, InputError

        try:
            return int(importlib.import_module(f"decentra.cli.{arguments[0]}").main(arguments[1:]))
        except InputError as error:
            return _say(str(error), 2)
        except DecentraError as error:
            return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("stopped", 1)
    except OSError as error:
        if error.errno is None:
            raise
        return _say(_disk_sentence(error), 1)


def _disk_sentence(error: OSError) -> str:
    remedy = "free some space" if error.errno == errno.ENOSPC else "check the path and its permissions"
    return f"{error.filename or 'a file'}: {error.strerror}; {remedy}"


def _say(sentence: str, code: int) -> int:
    print(f"decentra: {sentence}", file=sys.stderr)
    return code


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def entry() -> NoReturn:
    """The process of a command. It ends as soon as the command has: taking torch and gRPC apart would keep a person who
    pressed Ctrl-C waiting for another second, and everything that must be closed is closed by then.
    """
    code = 1
    with contextlib.suppress(BrokenPipeError):  # who reads has read enough
        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    entry()
