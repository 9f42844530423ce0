"""The learning rate in a swarm: the same at the same phase for all, late joiners too, and moved by settings alone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from decentra.config import InnerConfig, RunConfig
from decentra.rounds.wishes import WISH_FILE
from decentra.settings import next_text
from decentra.sim import clock
from decentra.sim.cluster import Cluster, Corpus
from decentra.sim.scenario import Fault, Scenario
from decentra.train.schedule import learning_rate
from decentra.train.step import Replica

Rates = dict[int, list[float]]
WSD = InnerConfig(
    lr=3e-3, warmup_tokens=4000, batch_samples=4, schedule="wsd", decay_start_tokens=8000, decay_tokens=6000, min_lr_share=0.0
)


@pytest.fixture()
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """The rates that each replica has trained with, in order, by the replica's number."""
    taken: Rates = {}
    numbers: dict[int, int] = {}
    step = Replica.inner_step

    def noted(replica: Replica, inputs: object, targets: object, lr: float) -> float:
        taken.setdefault(numbers.setdefault(id(replica), len(numbers)), []).append(lr)
        return step(replica, inputs, targets, lr)  # type: ignore[arg-type]

    monkeypatch.setattr(Replica, "inner_step", noted)
    return taken


def test_a_late_joiner_trains_at_its_peers_rate(rates: Rates, small_run: RunConfig, play: Callable[[Scenario], Cluster]) -> None:
    run = dataclasses.replace(small_run, inner=WSD, stop_syncs=8)
    cluster = play(Scenario(name="late", peers=3, run=run, faults=(Fault(at_sync=2, kind="join"),)))
    assert len(cluster.joined_late) == 1 and len(rates) == 4
    first, *others = rates.values()
    late = others[2]
    assert len(first) == 40 and 10 <= len(late) < 40
    # Who caught up in mid-slot leaves out the steps that the others had taken by then, and no other.
    assert all(len(each) >= 38 for each in others[:2])
    assert all(rate in steps for each in others for steps in [iter(first)] for rate in each)
    assert max(first) == WSD.lr and first[0] < first[5] and first[-1] == learning_rate(10**9, WSD) == 0.0
    assert any(0.0 < lr < WSD.lr for lr in late)


def test_a_wsd_run_is_extended_and_decayed_on_its_way(rates: Rates, small_run: RunConfig, data_folder: Path) -> None:
    """The decay would begin at 8,000 tokens. It is put off while the rate is stable, then brought on, and nothing starts again."""
    run = dataclasses.replace(small_run, inner=WSD, stop_syncs=14, seed=3)  # nobody is late in this one
    cluster = Cluster(Scenario(name="moved", peers=3, run=run), Corpus.of(run, data_folder), lambda line: None)

    async def wish(at_sync: int, **wanted: object) -> None:
        while cluster.sync() < at_sync:
            await asyncio.sleep(0.05)
        for node in cluster.nodes:
            assert node.member is not None
            text = next_text(run, node.member.state.settings, {f"inner.{key}": value for key, value in wanted.items()})
            node.ports.store.files.write(WISH_FILE, text.encode())

    async def main() -> None:
        await asyncio.gather(
            cluster.play(), wish(2, decay_start_tokens=10**6), wish(8, decay_start_tokens=18_000, decay_tokens=4000)
        )

    clock.run(main())
    first, second, third = rates.values()
    assert first == second == third and len(first) == 70
    tokens = [1920 / 5 * step for step in range(1, 71)]  # of all three, 5 steps of 4 samples of 32 tokens a sync
    moved = dataclasses.replace(WSD, decay_start_tokens=18_000, decay_tokens=4000)
    assert first == pytest.approx([learning_rate(at, moved) for at in tokens], rel=1e-12, abs=1e-15)
    assert first != pytest.approx([learning_rate(at, WSD) for at in tokens])
    assert len({m.hash for m in (node.member for node in cluster.nodes) if m is not None}) == 1
