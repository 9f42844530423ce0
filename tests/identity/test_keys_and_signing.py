"""Keys, ids and signed envelopes."""

import stat
from pathlib import Path

import pytest

from decentra.errors import StateError
from decentra.identity.keys import IDENTITY_FILE, Identity, bytes_of_base32, peer_id
from decentra.identity.signing import IdentitySigner, MemoVerifier, SignatureError, open_signed, sign
from decentra.wire.v1 import swarm_pb2


def test_an_identity_survives_on_disk_readable_by_its_owner_only(tmp_path: Path) -> None:
    identity = Identity.load_or_create(tmp_path / "state")
    again = Identity.load_or_create(tmp_path / "state")
    assert again.peer == identity.peer and again.public_key == identity.public_key
    path = tmp_path / "state" / IDENTITY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [IDENTITY_FILE]


def test_a_damaged_or_missing_identity_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=IDENTITY_FILE):
        Identity.load(tmp_path)
    (tmp_path / IDENTITY_FILE).write_bytes(b"not a key")
    with pytest.raises(StateError, match="damaged"):
        Identity.load_or_create(tmp_path)


def test_a_peer_id_is_32_characters_of_base32() -> None:
    identity = Identity.from_seed(bytes(32))
    assert identity.peer == peer_id(identity.public_key) == Identity.from_seed(bytes(32)).peer
    assert len(identity.peer) == 32 and identity.peer == identity.peer.lower()
    assert len(bytes_of_base32(identity.peer)) == 20


def test_what_is_signed_opens_in_its_domain_only() -> None:
    identity = Identity.create()
    data = sign(identity, b"vote", b"payload")
    assert open_signed(data, b"vote") == (identity.peer, b"payload")
    with pytest.raises(SignatureError, match="offer"):
        open_signed(data, b"offer")


def test_a_zero_byte_cannot_move_from_payload_to_domain() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        sign(Identity.create(), b"vo\0te", b"payload")


@pytest.mark.parametrize("field", ["payload", "public_key", "signature"])
def test_a_changed_or_missing_field_does_not_open(field: str) -> None:
    envelope = swarm_pb2.Signed.FromString(sign(Identity.create(), b"vote", b"payload"))
    for value in (b"", bytes(len(getattr(envelope, field)))):
        changed = swarm_pb2.Signed()
        changed.CopyFrom(envelope)
        setattr(changed, field, value)
        with pytest.raises(ValueError):
            open_signed(changed.SerializeToString(), b"vote")
    with pytest.raises(SignatureError):
        open_signed(b"\xff\xff\xff", b"vote")


def test_a_verifier_checks_a_signature_once_and_forgets_the_oldest() -> None:
    signer, verifier = IdentitySigner(Identity.create()), MemoVerifier(memo_size=2)
    messages = [signer.sign(b"vote", bytes([index])) for index in range(3)]
    for _ in range(3):
        assert verifier.open(b"vote", messages[0]) == (signer.peer, b"\0")
    assert verifier.num_checked == 1
    with pytest.raises(ValueError):
        verifier.open(b"offer", messages[0])
    for message in messages:
        verifier.open(b"vote", message)
    before = verifier.num_checked
    verifier.open(b"vote", messages[0])
    assert verifier.num_checked == before + 1
