"""Forcing a view on a state directory whose node does not run: what `decentra recover` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from decentra.errors import ConfigError, RefusedError
from decentra.ledger.apply import apply, state_after
from decentra.ledger.chain import entry_digest
from decentra.ledger.state import OuterTensors, State
from decentra.ledger.store import Snapshot, Store
from decentra.rounds import records
from decentra.rounds.catchup import Reached
from decentra.rounds.forks import DOMAIN_FORCED, forced_payload, fork_of
from decentra.rounds.lineage import ForcedView, forced_entry
from decentra.rounds.ports import Run
from decentra.seams import Signer
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2


def kept(state: State, own: PeerId, named: Sequence[str]) -> tuple[PeerId, ...]:
    """The members that unique beginnings of their ids name, the node of the state directory among them. Raises ConfigError."""
    found = {own}
    for prefix in named:
        matching = [peer for peer in state.peers() if prefix and peer.startswith(prefix)]
        if len(matching) != 1:
            fault = "is the beginning of no member's id" if not matching else f"is the beginning of {len(matching)} members' ids"
            raise ConfigError(f"--keep {prefix!r} {fault}; the last view is {', '.join(state.peers())}")
        found.add(matching[0])
    return tuple(peer for peer in state.peers() if peer in found)


def check_operator(run: Run, signer: Signer) -> None:
    """Raises RefusedError where this key may not force a view of this run."""
    if signer.public_key not in run.operator_keys:
        raise RefusedError(
            f"only an operator of run {run.run_id.hex()[:8]} may force a view, and {signer.peer[:8]} is none; the founder, {run.founder}, "
            "is one: its key is identity.pem in that node's state directory, to be given with --key FILE"
        )


def force(store: Store, run: Run, reached: Reached, tensors: OuterTensors, signer: Signer, keep: Sequence[PeerId]) -> Reached:
    """Sign a view of `keep` alone over the state reached, and take its entry: log, then snapshot. Returns the state after it.

    Raises ConfigError where that view cannot stand, RefusedError where the signer is no operator.
    """
    check_operator(run, signer)
    state = reached.state
    run = run.under(state.settings)
    try:
        entry = forced_entry(run.run_id, run.machine, state, reached.state_hash, keep)
    except ValueError as error:
        raise ConfigError(f"the view cannot be forced: {error}; the last view is {', '.join(state.peers())}") from error
    body = records.entry_bytes(entry)
    view = ForcedView(run.run_id, state.lineage, state.r, reached.state_hash, entry_digest(body))
    signed = records.to_signed(signer.sign(DOMAIN_FORCED, forced_payload(view)))
    message = swarm_pb2.CertifiedEntry(entry=body, forced=signed)
    store.append(state.r, message.SerializeToString())
    after = apply(run.machine, state, tensors, entry, store.blob, fork_of(message))
    result = dataclasses.replace(reached, state=after, state_hash=state_after(reached.state_hash, body, after))
    store.save_snapshot(Snapshot(after.r, after.header(), reached.state_hash, entry_digest(body)), tensors, run.machine.fragments)
    return result
