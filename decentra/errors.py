"""Every exception decentra raises on purpose.

DecentraError
├── InputError(ValueError)        the user gave something unusable: one sentence, exit code 2
│   ├── ConfigError               a config file or option; names the key and the remedy
│   └── JoinStringError           a join string that cannot be read
├── SetupError                    this machine cannot do it now (port taken, disk full, no p2pd): exit code 1
├── StateError                    a state directory that is damaged or belongs elsewhere
├── RefusedError                  the swarm refused this node (version, key, token, settings)
└── PeerError                     one peer's fault; data for the round, never the end of it
    ├── PeerUnreachable           it did not answer, or the connection broke
    ├── PeerTimeout               it answered too late
    └── PeerFault                 it sent what does not hold (digest, size, signature, stale round)
"""


class DecentraError(Exception):
    """Base of all errors raised on purpose; the message is one sentence for a person."""


class InputError(DecentraError, ValueError):
    """Bad input from the user: names the value, the place and the remedy."""


class ConfigError(InputError):
    """A config file or option that cannot be used."""


class JoinStringError(InputError):
    """A join string that cannot be read."""


class SetupError(DecentraError):
    """This machine cannot do it now: a taken port, a full disk, a missing program."""


class StateError(DecentraError):
    """A state directory that is damaged, locked, or belongs to another run."""


class RefusedError(DecentraError):
    """The swarm refused this node, by name and reason."""


class PeerError(DecentraError):
    """A peer's fault. `peer` is its id."""

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(f"{peer[:8]}: {message}")
        self.peer = peer
        self.reason = message


class PeerUnreachable(PeerError):
    """The peer did not answer, or the connection broke."""


class PeerTimeout(PeerError):
    """The peer answered too late."""


class PeerFault(PeerError):
    """The peer sent something that does not hold."""
