"""A cell: one arm at one seed, played to its end. Finished cells are lines of a file; whoever starts again plays the others."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from decentra import build
from decentra.config import RunConfig, config_hash
from sims.experiments.codec_sweep.arms import ARMS, run_of
from sims.experiments.codec_sweep.swarm import contribution_bytes, data_parallel_losses, swarm_losses


@dataclass(frozen=True, slots=True)
class Record:
    """What came of a cell. config: names its `[run]`. losses: held-out, nats a token, before the first round and after each.

    bytes_a_round: what one replica encodes between two outer steps, block digests counted.
    """

    arm: str
    seed: int
    config: str
    tokens_a_round: int
    losses: tuple[float, ...]
    bytes_a_round: int
    wall_s: float


def play(arm_name: str, size: RunConfig, seed: int, cache: Path) -> Record:
    """Train one cell."""
    start_s, arm = time.perf_counter(), ARMS[arm_name]
    run = run_of(arm, size, seed)
    losses = data_parallel_losses(run, cache) if arm.data_parallel else swarm_losses(run, cache)
    one = contribution_bytes(build.codecs()[arm.codec.up], build.text(run, cache).layout.num_chunks)
    return Record(
        arm=arm_name,
        seed=seed,
        config=config_hash(run),
        tokens_a_round=run.planned_tokens,
        losses=tuple(losses),
        bytes_a_round=one * (run.outer.inner_steps if arm.data_parallel else 1),
        wall_s=time.perf_counter() - start_s,
    )


def read(path: Path) -> list[Record]:
    """Cells that are finished; none where there is no file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Record(**{**row, "losses": tuple(row["losses"])}) for row in rows]


def write(path: Path, records: Sequence[Record]) -> None:
    """All lines anew, beside the file and then in its place: whenever it is killed, every line is whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records), encoding="utf-8")
    os.replace(temporary, path)


def sweep(arms: Sequence[str], seeds: Sequence[int], size: RunConfig, path: Path, cache: Path, processes: int) -> Iterator[Record]:
    """Play the cells that `path` lacks, all arms of a seed before the next seed; each is in `path` before it comes."""
    kept = read(path)
    done = {(record.arm, record.seed, record.config) for record in kept}
    wanted = [(arm, seed) for seed in seeds for arm in arms if (arm, seed, config_hash(run_of(ARMS[arm], size, seed))) not in done]
    if not wanted:
        return
    build.text(size, cache)  # once, before two workers would both build it
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _prepare)
    try:
        for future in as_completed(pool.submit(play, arm, size, seed, cache) for arm, seed in wanted):
            kept.append(future.result())
            write(path, kept)
            yield kept[-1]
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that is killed cannot stop its workers, who would play on for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker has a parent"
    parent.join()
    os._exit(1)
