"""Certificates of a node: P-256, because gRPC's handshake fails on Ed25519 leaves, bound to the identity by an extension.

The extension carries the Ed25519 public key and its signature over the certificate's own P-256 key. The server
certificate is self-signed, and pinned by those who dial. The client certificate is issued by the run's authority,
whose key everyone derives who knows the run id and the invite token: who does not, cannot complete a handshake.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from decentra.errors import StateError
from decentra.identity.keys import PUBLIC_KEY_BYTES, Identity, peer_id, verify, write_secret
from decentra.seams import TlsMaterial
from decentra.types import PeerId

TLS_NAME = "decentra"
"""The one subject name: peers are told apart by key, so dialling overrides the host name with this."""

IDENTITY_OID = x509.ObjectIdentifier("2.25.214748364700001")
BINDING_DOMAIN = b"decentra tls key"
SERVER_FILE = "server.pem"

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NOT_BEFORE = datetime.datetime(2000, 1, 1)
_NOT_AFTER = datetime.datetime(2200, 1, 1)
# Fixed dates: keys are what is trusted here, and a volunteer's clock may be wrong by years.


def authority_key(run_id: bytes, token: bytes) -> ec.EllipticCurvePrivateKey:
    """The run's P-256 authority key, the same on every node that knows run id and token (b"": an open run)."""
    # 48 bytes, not 32: reduced to the group order the bias is below 2^-128.
    seed = HKDF(hashes.SHA256(), length=48, salt=run_id, info=b"decentra run authority").derive(run_id + token)
    return ec.derive_private_key(int.from_bytes(seed, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def tls_material(identity: Identity, run_id: bytes, token: bytes, state_dir: Path | None = None) -> TlsMaterial:
    """All certificates of a node. The server pair is kept in `state_dir`, if given, so that pins survive a restart.

    Raises StateError for a damaged or foreign kept pair, OSError if it cannot be written.
    """
    server_key, server_certificate = _server_pair(identity, state_dir)
    authority = authority_key(run_id, token)
    client_key = ec.generate_private_key(ec.SECP256R1())
    return TlsMaterial(
        server_key=server_key,
        server_certificate=server_certificate,
        client_key=_key_pem(client_key),
        client_certificate=_pem(_leaf(identity, client_key, authority, _authority_name())),
        authority_certificate=_pem(_authority_certificate(authority)),
        peer_of_certificate=peer_of_certificate,
    )


def peer_of_certificate(pem: bytes) -> PeerId:
    """The peer whose identity signed this certificate's key. Raises ValueError if there is no such valid binding."""
    try:
        return _bound_peer(x509.load_pem_x509_certificate(pem))
    except (UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        # What a stranger wrote must not surprise us with errors outside ValueError.
        raise ValueError(f"the certificate cannot be read: {error}") from error


def _bound_peer(certificate: x509.Certificate) -> PeerId:
    try:
        extension = certificate.extensions.get_extension_for_oid(IDENTITY_OID).value
    except x509.ExtensionNotFound as error:
        raise ValueError("the certificate names no decentra identity") from error
    if not isinstance(extension, x509.UnrecognizedExtension):
        raise ValueError("the certificate's identity extension cannot be read")
    public_key, signature = extension.value[:PUBLIC_KEY_BYTES], extension.value[PUBLIC_KEY_BYTES:]
    if not verify(public_key, BINDING_DOMAIN, _spki(certificate.public_key()), signature):
        raise ValueError("the certificate's key is not signed by the identity it names")
    return peer_id(public_key)


def _server_pair(identity: Identity, state_dir: Path | None) -> tuple[bytes, bytes]:
    path = state_dir / SERVER_FILE if state_dir is not None else None
    if path is not None and path.exists():
        return _kept_pair(identity, path)
    key = ec.generate_private_key(ec.SECP256R1())
    pair = _key_pem(key), _pem(_leaf(identity, key, key, _node_name()))
    if path is not None:
        write_secret(path, pair[0] + pair[1])
    return pair


def _kept_pair(identity: Identity, path: Path) -> tuple[bytes, bytes]:
    data = path.read_bytes()
    cut = data.find(b"-----BEGIN CERTIFICATE-----")
    try:
        key = serialization.load_pem_private_key(data[:cut], password=None)
        owner = peer_of_certificate(data[cut:])
        certified = x509.load_pem_x509_certificate(data[cut:]).public_key()
        if _spki(key.public_key()) != _spki(certified):
            raise ValueError("key and certificate do not belong together")
    except (ValueError, TypeError) as error:
        raise StateError(f"the server certificate {path} is damaged ({error}); remove it, a new one will be made") from error
    if owner != identity.peer:
        raise StateError(f"the server certificate {path} belongs to peer {owner[:8]}; remove it, a new one will be made")
    return data[:cut], data[cut:]


def _leaf(
    identity: Identity, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey, issuer: x509.Name
) -> x509.Certificate:
    binding = identity.public_key + identity.signature(BINDING_DOMAIN, _spki(key.public_key()))
    return (
        _builder(_node_name(), issuer, key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(IDENTITY_OID, binding), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _authority_certificate(authority: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # Every node makes its own: only subject name and key take part in judging a client's chain.
    return (
        _builder(_authority_name(), _authority_name(), authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(_NOT_BEFORE).not_valid_after(_NOT_AFTER)


def _node_name() -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, TLS_NAME)])


def _authority_name() -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "decentra run authority")])


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the certificate's key is not on an elliptic curve")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
