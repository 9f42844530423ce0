"""Error feedback: a residual holds under the root it follows, whatever happened since it was written."""

import pytest
import torch
from stories import swarm_of

from decentra import build
from decentra.config import CodecConfig
from decentra.ledger.apply import packed_tensor
from decentra.ledger.files import MemoryFiles
from decentra.outer.feedback import compensate, remainder
from decentra.rounds import contribute
from decentra.rounds.contribution import encode_contribution
from decentra.rounds.residuals import Residuals
from decentra.types import CHUNK_ELEMENTS

LIMIT_S = 300.0
FEEDBACK = CodecConfig(feedback=1.0)


def test_what_was_lost_is_added_once_and_nothing_else():
    delta, residual = torch.randn(4096), torch.randn(4096)
    whole = delta.clone()
    compensate(whole, residual, 1.0)
    assert torch.equal(whole, delta + residual)
    decoded = whole.round()
    assert torch.equal(decoded + remainder(whole, decoded), whole)
    compensate(delta, residual, 0.5)
    assert torch.equal(delta, (whole - residual) + residual * 0.5) or torch.allclose(delta, whole - 0.5 * residual)


def test_only_the_residual_of_the_last_counted_root_holds():
    kept = Residuals(MemoryFiles())
    before, after = torch.randn(10), torch.randn(10)
    kept.keep(0, "aa", before)
    kept.keep(0, "bb", after)
    assert torch.equal(Residuals(kept._files).before(0, "bb", 10), after)
    assert kept.before(0, "aa", 10) is None


def test_a_residual_of_a_root_that_was_left_out_is_dropped_and_the_former_holds():
    kept = Residuals(MemoryFiles())
    before = torch.randn(10)
    kept.keep(0, "aa", before)
    kept.keep(0, "bb", torch.randn(10))
    assert torch.equal(kept.before(0, "aa", 10), before)
    assert kept.before(0, "bb", 10) is None


def test_fragments_keep_their_own():
    kept = Residuals(MemoryFiles())
    first, second = torch.randn(10), torch.randn(6)
    kept.keep(0, "aa", first)
    kept.keep(1, "bb", second)
    assert torch.equal(kept.before(0, "aa", 10), first) and torch.equal(kept.before(1, "bb", 6), second)


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_what_the_disk_changed_is_lost_and_never_sent(damage):
    kept = Residuals(MemoryFiles())
    kept.keep(0, "aa", torch.randn(10))
    (name,) = kept._files.names("residuals")
    raw = kept._files.read(name)
    kept._files.write(name, bytes([raw[0] ^ 1]) + raw[1:] if damage is None else damage)
    assert kept.before(0, "aa", 10) is None


@pytest.mark.parametrize("up", ["int8", "topk"])
def test_a_refused_contribution_gives_back_the_residual_it_was_made_with(up):
    """Two contributions follow the same counted one: the first is left out, the second starts from the same residual."""
    codec, kept, made = build.codecs()[up], Residuals(MemoryFiles()), {}
    anchor, *replicas = torch.randn(4, 2 * CHUNK_ELEMENTS)
    for name, after, local in zip(("counted", "refused", "again"), ("", "counted", "counted"), replicas, strict=True):
        before = kept.before(0, after, len(anchor))
        made[name] = encode_contribution(codec, anchor, local, before, 0.95)
        kept.keep(0, name, made[name].residual)
    wanted = encode_contribution(codec, anchor, replicas[2], made["counted"].residual.clone(), 0.95)
    assert torch.equal(made["again"].packed, wanted.packed) and torch.equal(made["again"].residual, wanted.residual)


def _decoded_sum(swarm, peer):
    """(what a peer's counted contributions decode to, summed in fp64; the number of them), from the blobs of a gathering swarm."""
    total, count = 0.0, 0
    machine = swarm.run.machine
    for sync in range(swarm.newest().state.sync):
        entry = swarm.entry_of(sync)
        senders = [c.sender for c in entry.counted]
        if peer in senders:
            out = torch.empty(machine.fragments[0].num_chunks, 4096)
            blob = swarm.newest().ports.store.blob(entry.sums[0].terms[senders.index(peer)].blob)
            codec = machine.codecs[machine.up]
            codec.decode(packed_tensor(blob, codec, len(out)), out)
            total, count = total + out.flatten().double(), count + 1
    return total, count


@pytest.mark.parametrize("up", ["int8", "topk"])
@pytest.mark.parametrize("crash", [None, "offered", "certified"])
def test_mass_is_sent_once_also_over_a_crash(crash, up, monkeypatch):
    """decoded + last residual = sum of the deltas that were counted, for a member killed after its offer or after its commit."""
    deltas = {}

    async def story(swarm):
        victim = swarm.nodes[2]
        if crash is not None:
            sync = swarm.newest().state.sync
            moved = (lambda: victim.member.own is not None) if crash == "offered" else (lambda: victim.member.state.sync > sync)
            await swarm.until(moved, step_s=0.001)
            swarm.kill(victim)
            await swarm.until(lambda: True)
            swarm.boot(victim)
            await swarm.until(lambda: victim.member is not None)
        await swarm.until(lambda: swarm.newest().state.sync >= 6)
        member = swarm.newest()
        total, count = _decoded_sum(swarm, victim.peer)
        assert count >= 4
        root = member.state.member(victim.peer).last_roots[0]
        raw = victim.files.read(f"residuals/0/{root}")
        residual = torch.frombuffer(bytearray(raw[32:]), dtype=torch.float32).double()
        roots = [c.root.hex() for s in range(member.state.sync) for c in swarm.entry_of(s).counted if c.sender == victim.peer]
        wanted = sum(deltas[root] for root in roots)
        assert torch.allclose(total + residual, wanted, atol=1e-3), float((total + residual - wanted).abs().max())
        await swarm.finish(LIMIT_S)

    write_down = contribute._write_down

    def noted(member, named, made):
        deltas[named.root.hex()] = (member.tensors.anchor - member.ports.trainer.local).double()
        write_down(member, named, made)

    monkeypatch.setattr(contribute, "_write_down", noted)
    swarm_of(3, story, codec=CodecConfig(up=up, aggregate="gather", feedback=1.0), snapshot_every=32)
