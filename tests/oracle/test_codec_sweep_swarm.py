"""The swarm of the codec sweep retraces single-process DiLoCo, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diloco import Oracle

from decentra import build
from decentra.config import CodecConfig, OuterConfig
from sims.experiments.codec_sweep.arms import TINY
from sims.experiments.codec_sweep.swarm import Swarm, lease_of

DENSE = CodecConfig(up="fp32", down="fp32")
GATHERED = CodecConfig(up="fp32", aggregate="gather", feedback=0.95)
"""What fp32 loses is nothing, so neither feedback nor the way of the bytes changes the average."""


@pytest.mark.parametrize("codec", [DENSE, GATHERED], ids=["reduce", "gather"])
def test_every_outer_step_is_that_of_the_oracle(codec: CodecConfig, tmp_path: Path) -> None:
    run = dataclasses.replace(TINY, outer=OuterConfig(inner_steps=3), codec=codec)
    swarm = Swarm(run, tmp_path)
    _, source, _ = build.outfit(run, build.text_folder(run, tmp_path)[0])
    oracle = Oracle(run, source)
    for sync in range(4):
        leases = {f"{member}": lease_of(run, member, sync) for member in range(run.start_members)}
        swarm.sync()
        oracle.sync({sender: [i for start, stop in lease for i in range(start, stop)] for sender, lease in leases.items()})
        for name, view in swarm.layout.views(swarm.tensors.anchor).items():
            assert torch.equal(view.view(torch.int32), oracle.anchor[name].view(torch.int32)), f"{name} after sync {sync}"
