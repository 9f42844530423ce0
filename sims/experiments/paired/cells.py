"""A cell: one arm at one seed, played to its end. Finished cells are lines of a file; whoever starts again plays the others."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from decentra.codec.base import Codec, num_blocks

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Record:
    """What came of a cell. config: names its `[run]`. losses: held-out, nats a token, before the first round and after each.

    bytes_a_round: what one replica encodes in a round of H inner steps, block digests counted.
    """

    arm: str
    seed: int
    config: str
    tokens_a_round: int
    losses: tuple[float, ...]
    bytes_a_round: int
    wall_s: float


Key = tuple[str, int, str]
"""Arm, seed and config of a cell."""


def contribution_bytes(codec: Codec, num_chunks: int) -> int:
    """Encoded bytes of one contribution with the digests of its blocks."""
    return num_chunks * codec.chunk_bytes + DIGEST_BYTES * num_blocks(num_chunks)


def read(path: Path) -> list[Record]:
    """Cells that are finished; none where there is no file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Record(**{**row, "losses": tuple(row["losses"])}) for row in rows]


def chosen(path: Path, wanted: Sequence[Key]) -> list[Record]:
    """Those cells, which are all finished."""
    records = [record for record in read(path) if (record.arm, record.seed, record.config) in set(wanted)]
    assert len(records) == len(wanted), f"{len(records)} of {len(wanted)} cells are in {path}"
    return records


def write(path: Path, records: Sequence[Record]) -> None:
    """All lines anew, beside the file and then in its place: whenever it is killed, every line is whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records), encoding="utf-8")
    os.replace(temporary, path)


def played(
    wanted: Sequence[Key], play: Callable[[str, int], Record], path: Path, processes: int, prepare: Callable[[], object]
) -> Iterator[Record]:
    """Play the cells that `path` lacks, in their order; each is in `path` before it comes. play: of (arm, seed), in a process of its
    own; prepare: once, before two of them would both do it."""
    kept = read(path)
    done = {(record.arm, record.seed, record.config) for record in kept}
    missing = [key for key in wanted if key not in done]
    if not missing:
        return
    prepare()
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _settle)
    try:
        for future in as_completed(pool.submit(play, arm, seed) for arm, seed, _ in missing):
            kept.append(future.result())
            write(path, kept)
            yield kept[-1]
    finally:
        pool.shutdown(cancel_futures=True)


def _settle() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that is killed cannot stop its workers, who would play on for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker has a parent"
    parent.join()
    os._exit(1)
