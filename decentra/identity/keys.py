"""A node's identity: one Ed25519 key, kept in its state directory; the peer id is derived from the public half."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from decentra.errors import StateError
from decentra.types import PeerId

IDENTITY_FILE = "identity.pem"
PUBLIC_KEY_BYTES = 32
PEER_ID_BYTES = 20


def base32_of(data: bytes) -> str:
    """Base32, lower case, no padding."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def bytes_of_base32(text: str) -> bytes:
    """Inverse of `base32_of`. Raises ValueError for characters that are not base32."""
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


def peer_id(public_key: bytes) -> PeerId:
    """Peer id of an Ed25519 public key (32 bytes)."""
    return base32_of(blake3(public_key).digest(length=PEER_ID_BYTES))


def signed_message(domain: bytes, payload: bytes) -> bytes:
    """What a signature covers: domain || 0x00 || payload, so that no message of one kind passes as another's."""
    if b"\0" in domain:
        raise ValueError(f"domain {domain!r} holds a zero byte, which separates it from the payload")
    return domain + b"\0" + payload


def verify(public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) of `payload` in `domain` holds under `public_key` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed_message(domain, payload))
    except (InvalidSignature, ValueError):
        return False
    return True


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read (mode 600), whole or not at all. Raises OSError."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class Identity:
    """An Ed25519 key pair. `peer`: its id; `public_key`: 32 bytes."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes_raw()
        self.peer: PeerId = peer_id(self.public_key)

    @classmethod
    def create(cls) -> Identity:
        """A new random identity."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte seed: for simulations, which must repeat."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, state_dir: Path) -> Identity:
        """The identity kept in `state_dir`. Raises StateError if there is none or it cannot be read."""
        return cls.read(state_dir / IDENTITY_FILE)

    @classmethod
    def read(cls, path: Path) -> Identity:
        """The identity in a key file. Raises StateError if there is none or it cannot be read."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise StateError(f"cannot read the identity {path}: {error.strerror}; give another state directory") from error
        except (ValueError, TypeError) as error:
            raise StateError(f"the identity {path} is damaged; restore it, or remove it to become a new peer") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise StateError(f"the identity {path} is not an Ed25519 key; restore it, or remove it to become a new peer")
        return cls(key)

    @classmethod
    def load_or_create(cls, state_dir: Path) -> Identity:
        """The identity of `state_dir`, made and saved on first use. Raises StateError, OSError."""
        if (state_dir / IDENTITY_FILE).exists():
            return cls.load(state_dir)
        identity = cls.create()
        identity.save(state_dir)
        return identity

    def save(self, state_dir: Path) -> None:
        """Keep the private key in `state_dir`, readable by its owner only, atomically. Raises OSError."""
        state_dir.mkdir(parents=True, exist_ok=True)
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(state_dir / IDENTITY_FILE, pem)

    def signature(self, domain: bytes, payload: bytes) -> bytes:
        """64 bytes over domain || 0x00 || payload. Raises ValueError for a domain with a zero byte."""
        return self._key.sign(signed_message(domain, payload))
