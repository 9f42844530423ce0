"""What many tests share: a small corpus, built once, and small swarms on the virtual clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from decentra.config import CodecConfig, DataConfig, InnerConfig, ModelConfig, OuterConfig, RunConfig
from decentra.data import shards
from decentra.sim import clock
from decentra.sim.cluster import Cluster, Corpus
from decentra.sim.scenario import Scenario

SMALL_RUN = RunConfig(
    name="small",
    start_members=3,
    stop_syncs=5,
    eval_samples=4,
    snapshot_every=1000,
    model=ModelConfig(dim=32, num_layers=1, num_heads=2, num_kv_heads=2, tied=True),
    data=DataConfig(vocab_size=512, context=32, max_text_bytes=400_000),
    inner=InnerConfig(lr=3e-3, warmup_tokens=1000, batch_samples=4),
    outer=OuterConfig(inner_steps=5),
    codec=CodecConfig(up="fp32", down="fp32"),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors here are small: a second thread would only wait for the first, and long where the machine is busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer and shards of SMALL_RUN."""
    folder = tmp_path_factory.mktemp("data")
    shards.build(SMALL_RUN.data, folder)
    return folder


@pytest.fixture(scope="session")
def small_run() -> RunConfig:
    """Three members, five syncs of five steps, a model of 0.1 MB, fp32 both ways."""
    return SMALL_RUN


Play = Callable[[Scenario], Cluster]


@pytest.fixture(scope="session")
def play(data_folder: Path) -> Play:
    """Runs a scenario on the virtual clock to its end and gives the cluster; its nodes' stores live on."""

    def run(scenario: Scenario) -> Cluster:
        cluster = Cluster(scenario, Corpus.of(scenario.run, data_folder), lambda line: None)
        clock.run(cluster.play())
        return cluster

    return run


@pytest.fixture(scope="session")
def small_swarm(play: Play) -> Cluster:
    """A swarm of SMALL_RUN that has ended, with a snapshot every third entry and none pinned. Read only: many tests share it."""
    cluster = play(Scenario(name="small", peers=3, run=dataclasses.replace(SMALL_RUN, snapshot_every=3)))
    for node in cluster.nodes:
        node.ports.store.pinned = lambda: None
        node.ports.store.prune(2)
    return cluster
