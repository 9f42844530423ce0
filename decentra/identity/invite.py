"""Join strings: everything a newcomer needs to find and enter a run, in one line of lower-case letters and digits.

`decentra1` + base32 (no padding) of: run id (16), founder key (32), token (length byte, 0 or 16), DHT addresses
(count byte, then length byte and text each), gRPC endpoints (the same, each followed by its peer id: length byte,
0 or 20 raw bytes), and the first 4 bytes of BLAKE3 over all before.
"""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

from decentra.errors import JoinStringError
from decentra.identity.keys import PEER_ID_BYTES, PUBLIC_KEY_BYTES, base32_of, bytes_of_base32
from decentra.types import PeerId

PREFIX = "decentra1"
RUN_ID_BYTES = 16
TOKEN_BYTES = 16
MAX_ADDRESSES = 4

_CHECKSUM_BYTES = 4
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_REMEDY = "copy it again from the node that printed it"


@dataclass(frozen=True, slots=True)
class Entrance:
    """A gRPC endpoint "host:port" and the peer that must answer there ("": any), so a token is shown to no other."""

    endpoint: str
    peer: PeerId = ""


@dataclass(frozen=True, slots=True)
class Invite:
    """What a join string says. `token` is empty for an open run; at most 4 `dht` addresses and 4 `entrances`."""

    run_id: bytes
    founder_key: bytes
    token: bytes = b""
    dht: tuple[str, ...] = ()
    entrances: tuple[Entrance, ...] = ()


def encode(invite: Invite) -> str:
    """The join string of an invite; addresses beyond the fourth of a kind are left out. Raises ValueError."""
    if len(invite.run_id) != RUN_ID_BYTES or len(invite.founder_key) != PUBLIC_KEY_BYTES or len(invite.token) not in (0, TOKEN_BYTES):
        raise ValueError("an invite has a run id of 16 bytes, a founder key of 32 and a token of 0 or 16")
    dht, entrances = invite.dht[:MAX_ADDRESSES], invite.entrances[:MAX_ADDRESSES]
    parts = [invite.run_id, invite.founder_key, _field(invite.token), bytes([len(dht)])]
    parts += [_field(address.encode()) for address in dht]
    parts.append(bytes([len(entrances)]))
    parts += [_field(entrance.endpoint.encode()) + _field(bytes_of_base32(entrance.peer)) for entrance in entrances]
    body = b"".join(parts)
    return PREFIX + base32_of(body + _checksum(body))


def decode(text: str) -> Invite:
    """The invite of a join string; surrounding and inner white space (a wrapped line) is ignored. Raises JoinStringError."""
    body = _checked_body("".join(text.split()).lower())
    try:
        return _parse(body)
    except ValueError as error:
        raise JoinStringError(f"the join string is made wrongly ({error}); {_REMEDY}") from error


def _checked_body(text: str) -> bytes:
    if not text.startswith(PREFIX):
        shown = text[:12] + ("..." if len(text) > 12 else "")
        raise JoinStringError(f"the join string {shown!r} does not begin with {PREFIX!r}; {_REMEDY}")
    coded = text[len(PREFIX) :]
    for position, character in enumerate(coded):
        if character not in _ALPHABET:
            raise JoinStringError(
                f"the join string has {character!r} at position {len(PREFIX) + position + 1}, "
                f"where only a-z and 2-7 can stand; {_REMEDY}"
            )
    try:
        data = bytes_of_base32(coded)
    except ValueError:
        raise JoinStringError(f"the join string of {len(text)} characters is cut off or too long; {_REMEDY}") from None
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if _checksum(body) == checksum:
        return body
    try:
        _parse(body)
    except _Truncated:
        raise JoinStringError(f"the join string is cut off after {len(text)} characters, or was changed; {_REMEDY}") from None
    except ValueError:
        pass
    raise JoinStringError(f"the join string's checksum does not match: a character was changed; {_REMEDY}")


class _Truncated(ValueError):
    """The bytes end before the last field does."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, num_bytes: int) -> bytes:
        piece = self._data[self._at : self._at + num_bytes]
        if len(piece) != num_bytes:
            raise _Truncated(f"{num_bytes} bytes expected at {self._at}, {len(piece)} left")
        self._at += num_bytes
        return piece

    def count(self) -> int:
        return self.take(1)[0]

    def field(self) -> bytes:
        return self.take(self.count())

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes too many")


def _parse(body: bytes) -> Invite:
    reader = _Reader(body)
    run_id, founder_key, token = reader.take(RUN_ID_BYTES), reader.take(PUBLIC_KEY_BYTES), reader.field()
    dht = tuple(reader.field().decode() for _ in range(reader.count()))
    entrances = tuple(Entrance(reader.field().decode(), _peer(reader.field())) for _ in range(reader.count()))
    reader.end()
    return Invite(run_id, founder_key, token, dht, entrances)


def _peer(raw: bytes) -> PeerId:
    if len(raw) not in (0, PEER_ID_BYTES):
        raise ValueError(f"a peer id of {len(raw)} bytes, not {PEER_ID_BYTES}")
    return base32_of(raw)


def _field(data: bytes) -> bytes:
    if len(data) > 255:
        raise ValueError(f"a field of {len(data)} bytes does not fit into a join string; addresses have at most 255")
    return bytes([len(data)]) + data


def _checksum(body: bytes) -> bytes:
    return blake3(body).digest(length=_CHECKSUM_BYTES)
