"""Signed envelopes: opaque payload bytes, the signer's key, an Ed25519 signature; verified before they are parsed."""

from __future__ import annotations

from collections import OrderedDict

from blake3 import blake3
from google.protobuf.message import DecodeError

from decentra.identity.keys import Identity, peer_id, verify
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2


class SignatureError(ValueError):
    """A signed envelope that does not hold."""


def sign(identity: Identity, domain: bytes, payload: bytes) -> bytes:
    """A serialised `Signed` of `payload` in `domain`."""
    envelope = swarm_pb2.Signed(
        payload=payload, public_key=identity.public_key, signature=identity.signature(domain, payload)
    )
    return envelope.SerializeToString()


def open_signed(data: bytes, domain: bytes) -> tuple[PeerId, bytes]:
    """(signer, payload) of a serialised `Signed`. Raises SignatureError if it does not hold in `domain`."""
    envelope = _parsed(data)
    if not verify(envelope.public_key, domain, envelope.payload, envelope.signature):
        raise SignatureError(f"the signature does not hold for {domain.decode(errors='replace')!r}")
    return peer_id(envelope.public_key), envelope.payload


def _parsed(data: bytes) -> swarm_pb2.Signed:
    try:
        return swarm_pb2.Signed.FromString(data)
    except DecodeError as error:
        raise SignatureError(f"{len(data)} bytes are not a signed envelope") from error


class IdentitySigner:
    """`seams.Signer` of an identity."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @property
    def peer(self) -> PeerId:
        """Peer id of the key."""
        return self._identity.peer

    @property
    def public_key(self) -> bytes:
        """Ed25519 public key, 32 bytes."""
        return self._identity.public_key

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        """A serialised `Signed` over domain || 0x00 || payload."""
        return sign(self._identity, domain, payload)


class MemoVerifier:
    """`seams.Verifier` that remembers what held, so that a process checks a signature once; share one a process."""

    def __init__(self, memo_size: int = 8192) -> None:
        self._memo: OrderedDict[bytes, PeerId] = OrderedDict()
        self._memo_size = memo_size
        self.num_checked = 0

    def open(self, domain: bytes, data: bytes) -> tuple[PeerId, bytes]:
        """(signer, payload) of a serialised `Signed`. Raises SignatureError if it does not hold in `domain`."""
        # The memo keeps digests, not payloads: an entry may be megabytes.
        key = blake3(domain + b"\0" + data).digest()
        known = self._memo.get(key)
        if known is not None:
            self._memo.move_to_end(key)
            return known, _parsed(data).payload
        self.num_checked += 1
        signer, payload = open_signed(data, domain)
        self._memo[key] = signer
        if len(self._memo) > self._memo_size:
            self._memo.popitem(last=False)
        return signer, payload
