"""The first state of a run, and the signed manifest that names it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decentra.config import RunConfig, run_bytes
from decentra.ledger.apply import first_hash, initial_state
from decentra.ledger.chain import digest, header_digest
from decentra.ledger.golden import GOLDEN
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.state import OuterTensors
from decentra.ledger.store import Snapshot, Store
from decentra.outer.layout import Layout
from decentra.rounds.catchup import Reached
from decentra.rounds.ports import MakeMachine, Run, manifest_digest, read_manifest
from decentra.rounds.records import DOMAIN_MANIFEST
from decentra.seams import Signer, Verifier
from decentra.types import PROTOCOL_VERSION, Digest
from decentra.wire.v1 import swarm_pb2


@dataclass(frozen=True, slots=True)
class Material:
    """What a founder brings: files as (name, digest, bytes) and the samples of one epoch."""

    config: RunConfig
    layout: Layout
    files: tuple[tuple[str, Digest, int], ...]
    num_samples: int
    token: bytes
    nonce: bytes


def found(
    material: Material, tensors: OuterTensors, store: Store, signer: Signer, verifier: Verifier, make_machine: MakeMachine
) -> tuple[Run, Reached]:
    """Write S_0 as a snapshot and sign the manifest that names it."""
    config = material.config
    machine = make_machine(config, material.layout)
    founder = ViewMember(signer.peer, store.incarnation, True, config.first_lease_samples)
    state = initial_state(founder, tensors, machine.fragments, config.planned_tokens)
    manifest = swarm_pb2.Manifest(
        protocol_version=PROTOCOL_VERSION,
        run_config=run_bytes(config),
        layout=[swarm_pb2.Tensor(name=s.name, shape=s.shape, offset=s.offset) for s in material.layout.slots],
        files=[swarm_pb2.ObjectRef(name=name, digest=file_digest, size_bytes=size) for name, file_digest, size in material.files],
        founder_key=signer.public_key,
        token_digest=digest("decentra/token", material.token) if material.token else b"",
        operator_keys=[signer.public_key],
        initial_header_digest=header_digest(state.header()),
        golden_digest=GOLDEN,
        num_samples=material.num_samples,
        nonce=material.nonce,
    ).SerializeToString()
    store.save_snapshot(Snapshot(0, state.header(), manifest_digest(manifest), b""), tensors, machine.fragments)
    signed = signer.sign(DOMAIN_MANIFEST, manifest)
    store.files.write("manifest.bin", signed)
    run = read_manifest(signed, verifier, make_machine)
    return run, Reached(state, first_hash(manifest_digest(manifest), state))


def empty_tensors(layout: Layout, anchor: torch.Tensor | None = None) -> OuterTensors:
    """Tensors of S, zeros; `anchor` (num_elements,) fp32 may be given, shared memory for one."""
    return OuterTensors(torch.zeros(layout.num_elements) if anchor is None else anchor, torch.zeros(layout.num_elements))
