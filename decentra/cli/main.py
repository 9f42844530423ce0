"""`decentra`: one file a command; exit codes 0 done, 1 failed, 2 bad input with one sentence on stderr."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "demo": "the main job on this machine: a swarm of real node daemons on real text, one joins late, one is killed",
    "node": "found a swarm (--run RUN.toml), join one (--join STRING), or come back to one (--state DIR)",
    "bootstrap": "a rendezvous node for the DHT only; prints its address",
    "status": "what a swarm is doing, by its join string",
    "sim": "simulate a swarm from a scenario file",
    "replay": "reproduce the hash of any entry from a state directory, offline",
}
HIDDEN = ("trainer",)


def main() -> None:
    """Entry point of the `decentra` command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: decentra COMMAND [OPTIONS]     (decentra COMMAND --help shows options and an example)\n")
        for name, does in COMMANDS.items():
            print(f"  {name:<10} {does}")
        sys.exit(0 if arguments else 2)
    if arguments[0] not in (*COMMANDS, *HIDDEN):
        print(f"decentra: unknown command {arguments[0]!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    from decentra.errors import DecentraError, InputError

    try:
        sys.exit(importlib.import_module(f"decentra.cli.{arguments[0]}").main(arguments[1:]))
    except InputError as error:
        print(f"decentra: {error}", file=sys.stderr)
        sys.exit(2)
    except DecentraError as error:
        print(f"decentra: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
