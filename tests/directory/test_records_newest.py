"""Which record of a peer stands, and what is dropped."""

import pytest

from decentra.directory.record_order import MAX_RECORD_BYTES, NewestRecords, read_unverified
from decentra.identity.keys import Identity
from decentra.identity.signing import open_signed, sign
from decentra.wire.v1 import swarm_pb2


def record_of(identity: Identity, sequence: int, peer: str = "") -> bytes:
    record = swarm_pb2.Record(peer=peer or identity.peer, sequence=sequence)
    return sign(identity, b"record", record.SerializeToString())


def test_an_older_record_never_replaces_a_newer_one() -> None:
    ada, newest = Identity.create(), NewestRecords(read_unverified)
    assert newest.learn(record_of(ada, 7))
    assert not newest.learn(record_of(ada, 6))
    assert not newest.learn(record_of(ada, 7))
    assert newest.records() == {ada.peer: record_of(ada, 7)}


@pytest.mark.parametrize("record", [b"", b"\xff\xff", bytes(MAX_RECORD_BYTES + 1)])
def test_what_is_no_record_is_dropped(record: bytes) -> None:
    newest = NewestRecords(read_unverified)
    assert not newest.learn(record)
    assert newest.records() == {}


def test_a_verifying_reader_keeps_a_forged_record_out() -> None:
    ada, mallory = Identity.create(), Identity.create()

    def reader(record: bytes) -> tuple[str, int]:
        signer, payload = open_signed(record, b"record")
        claimed = swarm_pb2.Record.FromString(payload)
        if claimed.peer != signer:
            raise ValueError("signed by another")
        return signer, claimed.sequence

    newest = NewestRecords(reader)
    newest.learn(record_of(ada, 1))
    assert not newest.learn(record_of(mallory, 99, peer=ada.peer))
    assert newest.records() == {ada.peer: record_of(ada, 1)}
