"""Certificates: bound to identities, kept over restarts, issued by an authority that everyone derives."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from decentra.errors import StateError
from decentra.identity import tls
from decentra.identity.keys import Identity
from decentra.identity.tls import SERVER_FILE, authority_key, peer_of_certificate, tls_material

RUN_ID, TOKEN = b"r" * 16, b"t" * 16


def test_both_certificates_name_their_identity() -> None:
    identity = Identity.create()
    material = tls_material(identity, RUN_ID, TOKEN)
    assert peer_of_certificate(material.server_certificate) == identity.peer
    assert peer_of_certificate(material.client_certificate) == identity.peer
    with pytest.raises(ValueError, match="names no decentra identity"):
        peer_of_certificate(material.authority_certificate)


def test_every_node_derives_the_same_authority_and_no_other_token_does() -> None:
    secrets = {authority_key(*pair).private_numbers().private_value for pair in [(RUN_ID, TOKEN), (RUN_ID, b""), (b"x" * 16, TOKEN)]}
    assert len(secrets) == 3
    assert authority_key(RUN_ID, TOKEN).private_numbers() == authority_key(RUN_ID, TOKEN).private_numbers()
    mine, others = (tls_material(Identity.create(), RUN_ID, TOKEN) for _ in range(2))
    issuer = x509.load_pem_x509_certificate(others.authority_certificate)
    x509.load_pem_x509_certificate(mine.client_certificate).verify_directly_issued_by(issuer)


def test_a_binding_moved_to_another_key_does_not_hold() -> None:
    victim = x509.load_pem_x509_certificate(tls_material(Identity.create(), RUN_ID, TOKEN).server_certificate)
    stolen = victim.extensions.get_extension_for_oid(tls.IDENTITY_OID).value
    key = ec.generate_private_key(ec.SECP256R1())
    forged = tls._builder(victim.subject, victim.subject, key).add_extension(stolen, critical=False).sign(key, hashes.SHA256())
    with pytest.raises(ValueError, match="not signed by the identity"):
        peer_of_certificate(forged.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(ValueError):
        peer_of_certificate(b"not a certificate")


def test_the_server_pair_survives_a_restart_so_that_pins_hold(tmp_path: Path) -> None:
    identity = Identity.create()
    first, second = (tls_material(identity, RUN_ID, TOKEN, tmp_path) for _ in range(2))
    assert first.server_certificate == second.server_certificate and first.server_key == second.server_key
    with pytest.raises(StateError, match="belongs to peer"):
        tls_material(Identity.create(), RUN_ID, TOKEN, tmp_path)
    (tmp_path / SERVER_FILE).write_bytes(b"garbage")
    with pytest.raises(StateError, match="damaged"):
        tls_material(identity, RUN_ID, TOKEN, tmp_path)
