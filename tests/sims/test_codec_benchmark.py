"""The benchmark of the codecs measures every codec that can travel, and counts the bytes that must move."""

from __future__ import annotations

import pytest

from decentra import build
from decentra.types import CHUNK_ELEMENTS
from sims.benchmarks.codec import LINES_TOUCHED, Bench, Row, lines_of, measure


def test_every_codec_is_measured_beside_a_copy() -> None:
    codecs, chunks = list(build.codecs().values()), 5
    rows, copies = measure(codecs, chunks, num_threads=2, num_rounds=2)
    assert {(row.codec, row.verb) for row in rows} == {(c.name, verb) for c in codecs for verb in ("encode", "decode", "add")}
    for row in rows:
        packed, fp32 = chunks * build.codecs()[row.codec].chunk_bytes, 4 * chunks * CHUNK_ELEMENTS
        moved = {"encode": fp32, "decode": fp32, "add": 2 * fp32 if row.codec != "topk" else round(2 * fp32 * LINES_TOUCHED)}
        assert (row.packed_bytes, row.moved_bytes) == (packed, packed + moved[row.verb])
        assert len(row.seconds) == len(row.shares) == 2 and min(row.shares) > 0
    assert len(copies) == 3 * len(rows)


def test_the_table_shows_medians_and_the_range() -> None:
    row = Row("int8", "encode", packed_bytes=1_000_000, moved_bytes=5_000_000, seconds=(0.002, 0.001, 0.004), shares=(0.5, 0.9, 0.2))
    copy, _, line = lines_of([row], [10e9, 30e9, 20e9], 1_000_000)
    assert copy == "copy 20.0 GB/s read and written (10.0 to 30.0)"
    assert line.split() == ["int8", "encode", "8.000", "2.0", "2.0", "2.5", "0.50", "(0.20", "to", "0.90)"]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_fill_what_one_thread_fills(threads: int) -> None:
    codec = build.codecs()["int4"]
    bench, alone = (Bench(7, count, [codec]) for count in (threads, 1))
    for each in (bench, alone):
        for verb in ("encode", "decode", "add"):
            each.seconds(each.verbs(codec)[verb][1])
    assert bench.packed(codec).numpy().tobytes() == alone.packed(codec).numpy().tobytes()
    assert bench.decoded.numpy().tobytes() == alone.decoded.numpy().tobytes()
