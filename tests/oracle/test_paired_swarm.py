"""The swarm of the experiments by paired seeds retraces single-process training, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diloco import Oracle
from eager import EagerOracle
from streaming import StreamingOracle

from decentra import build
from decentra.config import CodecConfig, OuterConfig, RunConfig
from decentra.data.stream import Source
from decentra.outer.fragments import parameters
from sims.experiments.paired.swarm import Swarm, lease_of
from sims.experiments.streaming_quality.arms import ARMS, TINY

DENSE = CodecConfig(up="fp32", down="fp32")
GATHERED = CodecConfig(up="fp32", aggregate="gather", feedback=0.95)
"""What fp32 loses is nothing, so neither feedback nor the way of the bytes changes the average."""

PLAIN = OuterConfig(inner_steps=3)
STREAMS = [dataclasses.replace(arm.outer, inner_steps=9, overlap_steps=min(arm.outer.overlap_steps, 2)) for arm in ARMS.values()]
"""The outer parts of the arms, with slots of 9 or 3 steps."""

MIXED, EAGER = ([outer for outer in STREAMS if outer.merge == merge] for merge in ("mix", "eager"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where TINY's text is built."""
    return tmp_path_factory.mktemp("text")


def swarm_of(outer: OuterConfig, codec: CodecConfig, cache: Path) -> tuple[Swarm, Source]:
    """A swarm of three members, and the text that its oracle reads."""
    run = dataclasses.replace(TINY, outer=outer, codec=codec)
    swarm = Swarm(run, cache)
    return swarm, build.outfit(run, build.text_folder(run, cache)[0])[1]


def ids_of(run: RunConfig, sync: int) -> dict[str, list[int]]:
    """What each member trains on, by its name as a sender."""
    leases = {f"{member}": lease_of(run, member, sync) for member in range(run.start_members)}
    return {sender: [i for start, stop in lease for i in range(start, stop)] for sender, lease in leases.items()}


def same(views: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], when: str) -> None:
    """Every bit."""
    for name, view in views.items():
        assert torch.equal(view.contiguous().view(torch.int32), wanted[name].contiguous().view(torch.int32)), f"{name} {when}"


@pytest.mark.parametrize("codec", [DENSE, GATHERED], ids=["reduce", "gather"])
def test_every_outer_step_is_that_of_the_oracle(codec: CodecConfig, cache: Path) -> None:
    swarm, source = swarm_of(PLAIN, codec, cache)
    oracle = Oracle(swarm.run, source)
    for sync in range(4):
        swarm.sync()
        oracle.sync(ids_of(swarm.run, sync))
        same(swarm.layout.views(swarm.tensors.anchor), oracle.anchor, f"after sync {sync}")


@pytest.mark.parametrize("outer", MIXED, ids=lambda o: f"P={o.fragments}-tau={o.overlap_steps}")
def test_fragments_and_overlap_retrace_the_streaming_oracle(outer: OuterConfig, cache: Path) -> None:
    swarm, source = swarm_of(outer, DENSE, cache)
    oracle = StreamingOracle(swarm.run, source, parameters(swarm.layout, swarm.machine.fragments))
    for sync in range(2 * outer.fragments + 2):
        swarm.sync()
        oracle.sync(ids_of(swarm.run, sync))
        same(swarm.layout.views(swarm.tensors.anchor), oracle.anchor, f"after sync {sync}")


@pytest.mark.parametrize("fragments", [1, 3])
def test_eager_updates_retrace_the_eager_oracle(fragments: int, cache: Path) -> None:
    swarm, source = swarm_of(dataclasses.replace(EAGER[0], fragments=fragments), DENSE, cache)
    oracle = EagerOracle(swarm.run, source, parameters(swarm.layout, swarm.machine.fragments))
    for sync in range(2 * fragments + 2):
        swarm.sync()
        oracle.sync(ids_of(swarm.run, sync))
        same(swarm.layout.views(swarm.tensors.anchor), oracle.anchor, f"after sync {sync}")
        for sender, base in zip(sorted(oracle.bases), swarm.bases, strict=True):
            same(swarm.layout.views(base), oracle.bases[sender], f"of {sender} after sync {sync}")


@pytest.mark.parametrize("outer", STREAMS, ids=lambda o: f"P={o.fragments}-tau={o.overlap_steps}-{o.merge}")
def test_looking_at_the_loss_changes_nothing(outer: OuterConfig, cache: Path) -> None:
    seen, unseen = (swarm_of(outer, DENSE, cache)[0] for _ in range(2))
    for _ in range(outer.fragments + 2):
        seen.sync()
        seen.heldout_loss()
        unseen.sync()
    assert torch.equal(seen.tensors.anchor, unseen.tensors.anchor)
