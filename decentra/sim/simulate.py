"""From a scenario to its summary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from decentra.config import config_hash
from decentra.observe.summary import summarize
from decentra.rounds.status import status_of
from decentra.sim import clock
from decentra.sim.cluster import Cluster, Corpus
from decentra.sim.scenario import Scenario


def simulate(scenario: Scenario, data_folder: Path, note: Callable[[str], None]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a scenario on the virtual clock: (summary, status of every node at its end). Repeatable from the seed."""
    torch.set_num_threads(scenario.threads)
    torch.manual_seed(scenario.seed)
    torch.use_deterministic_algorithms(True)
    start = time.perf_counter()
    corpus = Corpus.of(scenario.run, data_folder)

    async def main() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        cluster = Cluster(scenario, corpus, note)
        await cluster.play()
        statuses = [status_of(node.member) for node in cluster.live_nodes() if node.member is not None]
        summary = summarize(
            statuses,
            seed=scenario.seed,
            config_hash=config_hash(scenario.run),
            loss_last=cluster.heldout_loss(),
            joined_late=cluster.joined_late,
            killed=cluster.killed,
            contribution_bytes=cluster.contribution_bytes(),
            wall_s=time.perf_counter() - start,
            virtual_s=asyncio.get_running_loop().time(),
            stopped=cluster.last_words,
        )
        return summary, [*statuses, *cluster.last_words]

    return clock.run(main())
