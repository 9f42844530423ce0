"""validate(S_r, E_r): a good entry passes, and each kind of tampering is refused for its own reason."""

from __future__ import annotations

import dataclasses
import struct

import pytest
import torch

from decentra import build
from decentra.config import CodecConfig, RunConfig
from decentra.ledger.apply import Machine, apply, initial_state, packed_tensor
from decentra.ledger.entry import Counted, Entry, Sum, Term
from decentra.ledger.state import Member, OuterTensors, Part, State
from decentra.ledger.store import object_digest
from decentra.outer.average import coefficient_bits
from decentra.outer.layout import Layout
from decentra.rounds.leases import settle
from decentra.rounds.validate import close_fault, entry_fault
from decentra.types import BLOCK_CHUNKS, CHUNK_ELEMENTS

RUN_ID, HASH = b"r" * 16, b"h" * 32
CHUNKS = BLOCK_CHUNKS + 1
LAYOUT = Layout.of([("weight", (CHUNKS, CHUNK_ELEMENTS))])
MACHINE: Machine = build.machine(RunConfig(codec=CodecConfig(up="int8", down="int8")), LAYOUT)
ONE = struct.unpack("<I", struct.pack("<f", 1.0))[0]
NAN, INFINITY, HALF = 0x7FC00000, 0x7F800000, 0x3F000000
CONTEXT = MACHINE.tokens_a_sample
BLOBS = [bytes(rows * build.codecs()["int8"].chunk_bytes) for rows in (BLOCK_CHUNKS, 1)]


def member(name: str, incarnation: int = 1, dialable: bool = True, unheard: int = 0) -> Member:
    return Member(name, incarnation, dialable, 4, unheard_syncs=unheard)


def tensors() -> OuterTensors:
    return OuterTensors(torch.ones(LAYOUT.num_elements), torch.zeros(LAYOUT.num_elements))


def state_with(members: tuple[Member, ...], pool: tuple[tuple[int, int], ...] = ()) -> State:
    first = initial_state(members[0], tensors(), MACHINE.fragments, 100)
    leases = {m.peer: ((8 * n, 8 * n + 8),) for n, m in enumerate(members)}
    return dataclasses.replace(
        first, r=6, sync=3, members=members, leases=leases, fresh_sample=8 * len(members), pool=pool, parts=(Part(0, 2, members[0].peer),)
    )


STATE = state_with((member("alice"), member("bob", 4), member("carol", dialable=False), member("dave", unheard=2)))


def entry_of(state: State = STATE, **change: object) -> Entry:
    """An entry that counts alice and bob, removes dave and admits erin; `change` is made after the leases are settled."""
    counted = (
        Counted("alice", 1, b"a" * 32, 8 * CONTEXT, 2, ((0, 8),), 2),
        Counted("bob", 4, b"b" * 32, 4 * CONTEXT, 1, ((8, 12),), 2),
    )
    following = (*(m for m in state.members if m.peer != "dave"), member("erin"))
    settled = settle(state, {c.sender: c.claim for c in counted}, ("dave",), following)
    entry = Entry(
        run_id=RUN_ID, lineage="", r=6, state_hash=HASH, sync=3, fragment=0, counted=counted,
        sums=(
            Sum(0, 1, "int8", (Term(object_digest(BLOBS[0]), ONE),)),
            Sum(1, 1, "int8", (Term(object_digest(BLOBS[1]), ONE),)),
        ),
        heard=("alice", "bob", "carol"), admitted=(member("erin"),), removed=("dave",),
        returned=settled.returned, granted=settled.granted, next_parts=(Part(0, 1, "alice"), Part(1, 1, "erin")),
    )  # fmt: skip
    return dataclasses.replace(entry, **change)


def fault(entry: Entry, state: State = STATE) -> str:
    return entry_fault(RUN_ID, MACHINE, state, HASH, entry)


GOOD = entry_of()


def counted(**change: object) -> tuple[Counted, ...]:
    return (dataclasses.replace(GOOD.counted[0], **change), GOOD.counted[1])


def sums(**change: object) -> tuple[Sum, ...]:
    return (dataclasses.replace(GOOD.sums[0], **change), GOOD.sums[1])


def test_a_good_entry_passes_and_can_be_applied() -> None:
    assert fault(GOOD) == ""
    blobs = {object_digest(blob): blob for blob in BLOBS}
    after = apply(MACHINE, STATE, tensors(), GOOD, blobs.__getitem__)
    assert after.peers() == ("alice", "bob", "carol", "erin") and (after.r, after.sync, after.tokens) == (7, 4, 12 * CONTEXT)
    assert [m.last_claim_samples for m in after.members] == [8, 4, 0, 0]
    assert after.member("erin").first_sync == 4  # type: ignore[union-attr]


def test_an_entry_that_only_moves_the_view_passes() -> None:
    following = (*STATE.members[:3], STATE.members[3])
    settled = settle(STATE, {}, (), following)
    quiet = entry_of(
        sync=None, counted=(), sums=(), admitted=(), removed=(), heard=("alice", "bob", "carol"),
        returned=settled.returned, granted=settled.granted, next_parts=STATE.parts,
    )  # fmt: skip
    assert fault(quiet) == ""


TAMPERED = [
    ({"state_hash": b"x" * 32}, "it stands on state 787878"),
    ({"run_id": b"x" * 16}, "another run or lineage"),
    ({"lineage": "01"}, "another run or lineage"),
    ({"r": 7}, "it is entry 7 of another run or lineage, or not entry 6"),
    ({"sync": None}, "an entry without sync counts contributions"),
    ({"sync": 4}, "it counts sync 4 of fragment 0, due is 3"),
    ({"fragment": 1}, "it counts sync 3 of fragment 1, due is 3"),
    ({"counted": ()}, "it adds blobs that no contribution stands behind"),
    ({"counted": GOOD.counted[::-1]}, "its contributions are doubled or out of order"),
    ({"counted": (GOOD.counted[0], *GOOD.counted)}, "its contributions are doubled or out of order"),
    ({"counted": counted(sender="aaron")}, "aaron is not in the view with this incarnation"),
    ({"counted": counted(incarnation=2)}, "alice is not in the view with this incarnation"),
    ({"counted": counted(weight_tokens=0)}, "alice weighs 0 on base 2"),
    ({"counted": counted(weight_tokens=8 * CONTEXT + 1)}, "alice weighs 1025 on base 2, not 1024 on 2"),
    ({"counted": counted(weight_tokens=-8 * CONTEXT)}, "alice weighs"),
    ({"counted": counted(base_sync=1)}, "alice weighs 1024 on base 1, not 1024 on 2"),
    ({"counted": counted(claim=(), weight_tokens=0)}, "alice weighs 0 on base 2"),
    ({"counted": counted(root=b"short")}, "the root of alice is none"),
    ({"counted": counted(num_steps=1 << 63)}, "it took 9223372036854775808 steps"),
    ({"counted": counted(claim=((1, 9),))}, "the claim of alice is not a prefix of its lease"),
    ({"counted": counted(claim=((8, 16),))}, "the claim of alice is not a prefix of its lease"),
    ({"counted": counted(claim=((0, 9),))}, "the claim of alice is not a prefix of its lease"),
    ({"counted": counted(claim=((0, 4),), weight_tokens=4 * CONTEXT)}, "its returns or grants are not what the lease rule gives"),
    ({"sums": sums(codec="int3")}, "a sum of 'int3' does not weigh its 1 terms"),
    ({"sums": sums(codec="fp32")}, "a sum of 'fp32' does not weigh its 1 terms"),
    ({"sums": sums(terms=())}, "a sum of 'int8' does not weigh its 0 terms"),
    ({"sums": sums(terms=GOOD.sums[0].terms * 2)}, "a sum of 'int8' does not weigh its 2 terms"),
    ({"sums": sums(terms=(Term(b"x" * 32, NAN),))}, "a sum of 'int8' does not weigh its 1 terms"),
    ({"sums": sums(terms=(Term(b"x" * 32, INFINITY),))}, "a sum of 'int8' does not weigh its 1 terms"),
    ({"sums": sums(terms=(Term(b"x" * 32, HALF),))}, "a sum of 'int8' does not weigh its 1 terms"),
    ({"sums": sums(terms=(Term(b"x", ONE),))}, "names no blob"),
    ({"sums": GOOD.sums[::-1]}, "its sums do not tile the fragment"),
    ({"sums": sums(num_blocks=0)}, "its sums do not tile the fragment"),
    ({"sums": GOOD.sums[:1]}, "its sums cover 1 of 2 blocks"),
    ({"sums": ()}, "its sums cover 0 of 2 blocks"),
    ({"admitted": (dataclasses.replace(member("erin"), announced_samples=1 << 63),)}, "erin announces 9223372036854775808 samples a sync"),
    ({"admitted": (dataclasses.replace(member("erin"), announced_samples=0),)}, "erin announces 0 samples a sync"),
    ({"admitted": (dataclasses.replace(member("erin"), up_bytes_per_s=1 << 63),)}, "erin announces 9223372036854775808 bytes/s up"),
    ({"admitted": (dataclasses.replace(member("erin"), incarnation=1 << 63),)}, "erin announces incarnation"),
    ({"admitted": (member("erin"), member("erin"))}, "it admits a member twice"),
    ({"admitted": (member("bob", 5),)}, "it admits a member twice"),
    ({"removed": ("dave", "zoe")}, "it removes who is not there"),
    ({"removed": ("dave", "dave")}, "it removes who is not there"),
    ({"removed": ()}, "it keeps a member unheard for three syncs"),
    ({"heard": ("alice", "bob"), "removed": ("carol", "dave")}, "it removes carol, which neither left nor was unheard for three syncs"),
    ({"heard": ("alice", "bob", "carol", "zoe")}, "it hears who is not in the view"),
    ({"heard": ("bob",)}, "no quorum of the next view"),
    ({"heard": ("alice", "bob", "carol"), "admitted": tuple(member(f"new{n}") for n in range(4))}, "no quorum of the next view"),
    ({"next_parts": (Part(0, 1, "alice"),)}, "its map does not tile"),
    ({"next_parts": (Part(0, 2, "carol"),)}, "names an owner that cannot be dialled"),
    ({"next_parts": (Part(0, 2, "dave"),)}, "names an owner that cannot be dialled"),
    ({"granted": {}}, "its returns or grants are not what the lease rule gives"),
    ({"granted": {**GOOD.granted, "alice": ((0, 3),)}}, "its returns or grants are not what the lease rule gives"),
    ({"returned": {}}, "its returns or grants are not what the lease rule gives"),
    ({"granted": dict(reversed(GOOD.granted.items()))}, "its returns or grants are not what the lease rule gives"),
    ({"settings": "lr = 1"}, "it changes settings"),
]


@pytest.mark.parametrize(("change", "reason"), TAMPERED, ids=[f"{reason}-{n}" for n, (_, reason) in enumerate(TAMPERED)])
def test_a_tampered_entry_is_refused_for_its_own_reason(change: dict[str, object], reason: str) -> None:
    assert reason in fault(dataclasses.replace(GOOD, **change))


def test_a_view_whose_last_dialable_member_would_go_is_refused() -> None:
    state = state_with((member("alice"), member("bob", dialable=False), member("carol", dialable=False)))
    settled = settle(state, {}, ("alice",), state.members[1:])
    entry = entry_of(
        sync=None, counted=(), sums=(), admitted=(), removed=("alice",), heard=("alice", "bob", "carol"),
        returned=settled.returned, granted=settled.granted,
    )  # fmt: skip
    assert "none can be dialled" in fault(entry, state)


def test_sync_0_is_held_back_until_the_first_members_are_there() -> None:
    machine = dataclasses.replace(MACHINE, start_members=5)
    state = dataclasses.replace(STATE, sync=0)
    entry = dataclasses.replace(GOOD, sync=0, counted=tuple(dataclasses.replace(c, base_sync=-1) for c in GOOD.counted))
    assert entry_fault(RUN_ID, machine, state, HASH, entry) == "sync 0 is held back until 5 members are there"


def test_a_restarted_member_is_replaced_by_its_new_incarnation() -> None:
    back, state = member("bob", 5), state_with((member("alice"), member("bob", 4), member("carol")))
    following = (state.members[0], state.members[2], back)
    settled = settle(state, {}, ("bob",), following)
    entry = entry_of(
        sync=None, counted=(), sums=(), admitted=(back,), removed=("bob",), heard=("alice", "carol"),
        returned=settled.returned, granted=settled.granted, next_parts=(Part(0, 2, "alice"),),
    )  # fmt: skip
    assert fault(entry, state) == ""
    after = apply(MACHINE, state, tensors(), entry, {}.__getitem__)
    assert after.peers() == ("alice", "carol", "bob") and after.member("bob").incarnation == 5  # type: ignore[union-attr]


def test_whatever_passes_can_be_applied_or_names_a_blob_of_another_size() -> None:
    with pytest.raises(ValueError, match="are not 64 chunks of int8"):
        packed_tensor(b"short", build.codecs()["int8"], 64)
    before, after = tensors(), tensors()
    with pytest.raises(KeyError):
        apply(MACHINE, STATE, after, GOOD, {}.__getitem__)
    assert torch.equal(before.anchor, after.anchor) and torch.equal(before.momentum, after.momentum)


GATHERED = dataclasses.replace(MACHINE, gather=True)
SHARES = tuple(coefficient_bits(c.weight_tokens, sum(x.weight_tokens for x in GOOD.counted)) for c in GOOD.counted)


def gathered(*bits: int, first_block: int = 0, num_blocks: int = 2) -> tuple[Sum, ...]:
    return (Sum(first_block, num_blocks, "int8", tuple(Term(bytes([n]) * 32, each) for n, each in enumerate(bits))),)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (gathered(*SHARES), ""),
        (gathered(*SHARES[::-1]), "does not weigh its 2 terms"),
        (gathered(SHARES[0]), "does not weigh its 1 terms"),
        (gathered(ONE, ONE), "does not weigh its 2 terms"),
        (GOOD.sums, "does not weigh its 1 terms"),
        (gathered(*SHARES, num_blocks=1), "its sums cover 1 of 2 blocks"),
    ],
)
def test_what_is_gathered_is_weighed_as_the_contributions_weigh(found: tuple[Sum, ...], reason: str) -> None:
    verdict = entry_fault(RUN_ID, GATHERED, STATE, HASH, dataclasses.replace(GOOD, sums=found))
    assert verdict == "" if not reason else reason in verdict


def test_what_is_gathered_is_weighed_by_steps_too_where_contributions_are_normalised() -> None:
    machine = dataclasses.replace(GATHERED, normalised=True)
    counted_ = tuple(dataclasses.replace(c, num_steps=2 + n) for n, c in enumerate(GOOD.counted))
    fitting = tuple(machine.shares(counted_).values())
    assert fitting != SHARES
    for bits, fits in ((fitting, True), (SHARES, False)):
        verdict = entry_fault(RUN_ID, machine, STATE, HASH, dataclasses.replace(GOOD, counted=counted_, sums=gathered(*bits)))
        assert (verdict == "") == fits


def test_a_sync_that_nobody_offers_for_may_be_skipped() -> None:
    settled = settle(STATE, {}, ("dave",), (*STATE.members[:3], member("erin")))
    skipped = entry_of(counted=(), sums=(), returned=settled.returned, granted=settled.granted)
    assert fault(skipped) == ""
    moved = tensors()
    after = apply(MACHINE, STATE, moved, skipped, lambda name: b"")
    assert (after.sync, after.tokens, after.roots) == (STATE.sync + 1, STATE.tokens, STATE.roots)
    assert after.tokens_last_sync == STATE.tokens_last_sync and torch.equal(moved.anchor, tensors().anchor)


@pytest.mark.parametrize(
    ("roots", "parts", "reason"),
    [
        ([], [Part(0, 2, "alice")], "the close names 0 roots"),
        ([b"a", b"a"], [Part(0, 2, "alice")], "or one twice"),
        ([bytes([n]) for n in range(5)], [Part(0, 2, "alice")], "names 5 roots, or one twice, in a view of 4"),
        ([b"a"], [Part(0, 1, "alice")], "do not tile 2 blocks"),
        ([b"a"], [Part(0, 1, "alice"), Part(0, 2, "bob")], "do not tile 2 blocks"),
        ([b"a"], [Part(0, 2**63, "alice"), Part(2**63, 2**63, "bob")], "do not tile 2 blocks"),
        ([b"a"], [Part(0, 1, "alice"), Part(1, 1, "zoe")], "name an owner that is no member"),
    ],
)
def test_a_close_over_absurd_roots_or_parts_is_reduced_by_nobody(roots: list[bytes], parts: list[Part], reason: str) -> None:
    assert close_fault(MACHINE, STATE, [b"a", b"b"], [Part(0, 1, "alice"), Part(1, 1, "dave")]) == ""
    assert reason in close_fault(MACHINE, STATE, roots, parts)
