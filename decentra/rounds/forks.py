"""Between forced views and wire messages: what an operator signs, and the chain of forced views that led to a lineage."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from google.protobuf.message import DecodeError

from decentra.ledger.state import Fork
from decentra.rounds import records
from decentra.rounds.lineage import ForcedView, name_of
from decentra.seams import Verifier
from decentra.wire.v1 import swarm_pb2

DOMAIN_FORCED = b"decentra/forced-view"


def forced_payload(forced: ForcedView) -> bytes:
    """What an operator signs to force a view."""
    return swarm_pb2.ForcedView(
        run_id=forced.run_id,
        lineage=bytes.fromhex(forced.lineage),
        r=forced.r,
        state_hash=forced.state_hash,
        entry_digest=forced.entry_digest,
    ).SerializeToString()


def open_forced(verifier: Verifier, signed: bytes) -> ForcedView:
    """Verify and read a signed forced view. Raises ValueError."""
    _, payload = verifier.open(DOMAIN_FORCED, signed)
    m = _parse(payload)
    return ForcedView(m.run_id, m.lineage.hex(), m.r, m.state_hash, m.entry_digest, records.to_signed(signed).public_key)


def fork_of(message: swarm_pb2.CertifiedEntry) -> Fork | None:
    """The fork that a forced view makes, not verified; None where a certificate commits the entry. Raises ValueError."""
    if not message.HasField("forced"):
        return None
    forced = message.forced
    # Made anew of its three fields: the header that takes these bytes in must be the same everywhere.
    bare = swarm_pb2.Signed(payload=forced.payload, public_key=forced.public_key, signature=forced.signature)
    signed = bare.SerializeToString()
    return Fork(name_of(forced.public_key, forced.payload), _parse(forced.payload).r, signed.hex())


def open_forks(verifier: Verifier, operator_keys: Collection[bytes], run_id: bytes, signed: Sequence[bytes]) -> tuple[Fork, ...]:
    """Verify a chain of forced views from the run's first lineage on. Raises ValueError."""
    forks: list[Fork] = []
    for each in signed:
        forced, envelope = open_forced(verifier, each), records.to_signed(each)
        if forced.operator_key not in operator_keys or forced.run_id != run_id:
            raise ValueError("a forced view is signed by a key that is no operator's of this run")
        if forced.lineage != (forks[-1].name if forks else "") or (forks and forced.r <= forks[-1].r):
            raise ValueError("a forced view does not follow the one before it")
        forks.append(Fork(name_of(envelope.public_key, envelope.payload), forced.r, each.hex()))
    return tuple(forks)


def _parse(payload: bytes) -> swarm_pb2.ForcedView:
    try:
        return swarm_pb2.ForcedView.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"not a forced view: {error}") from error
