"""How near the codecs come to the speed of memory.

    python -m sims.benchmarks.codec [--params 100] [--threads 2] [--rounds 7] [--codecs int8,int4] [--out FILE]

Each thread takes a run of whole chunks; kernels give the interpreter lock away. All buffers are there and touched before, and
are used again. Before every measurement the same threads copy fp32 from one of these buffers to another, by memmove and by
torch; the faster of both is the limit. A share is the bytes that must be moved (read and written once), over the time, of the
bytes that the copy moves over its time: medians over the rounds, with the least and the largest. add is decode-and-add; of topk it
moves the cache lines that 64 elements of a chunk lie in.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from decentra import build
from decentra.codec.base import Codec
from decentra.types import CHUNK_ELEMENTS

Rows = slice
Work = Callable[[Rows], object]

FACTOR = 0.25

LINES_TOUCHED = 1 - (1 - 1 / 256) ** 64
"""Share of a chunk's 256 cache lines (64 bytes) that its 64 largest elements lie in, wherever they are equally likely."""


@dataclass(frozen=True, slots=True)
class Row:
    """One codec and verb: seconds of each round, and the share of the copy's rate beside it."""

    codec: str
    verb: str
    packed_bytes: int
    moved_bytes: int
    seconds: Sequence[float]
    shares: Sequence[float]


class Bench:
    """Buffers and threads. values, decoded: (n, 4096) fp32."""

    def __init__(self, num_chunks: int, num_threads: int, codecs: Sequence[Codec]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.values = torch.randn(num_chunks, CHUNK_ELEMENTS, generator=generator)
        self.decoded = torch.zeros(num_chunks, CHUNK_ELEMENTS)
        self._packed = torch.zeros(num_chunks * max(codec.chunk_bytes for codec in codecs), dtype=torch.uint8)
        cuts = [num_chunks * n // num_threads for n in range(num_threads + 1)]
        self._parts = [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
        self._pool = ThreadPoolExecutor(num_threads)

    def packed(self, codec: Codec) -> torch.Tensor:
        """(n, chunk_bytes) uint8, the same memory for every codec."""
        return self._packed[: len(self.values) * codec.chunk_bytes].view(-1, codec.chunk_bytes)

    def seconds(self, work: Work) -> float:
        """Of all threads, each at its part."""
        start = time.perf_counter()
        list(self._pool.map(work, self._parts))
        return time.perf_counter() - start

    def copy_bytes_per_s(self) -> float:
        """Read and written, by the faster way."""

        def memmove(rows: Rows) -> None:
            source, target = self.values[rows], self.decoded[rows]
            ctypes.memmove(target.data_ptr(), source.data_ptr(), 4 * source.numel())

        ways: list[Work] = [memmove, lambda rows: self.decoded[rows].copy_(self.values[rows])]
        return 8 * self.values.numel() / min(self.seconds(way) for way in ways)

    def verbs(self, codec: Codec) -> dict[str, tuple[int, Work]]:
        """Bytes that must move, and the work on some rows."""
        packed, fp32_bytes = self.packed(codec), 4 * self.values.numel()
        scratch = torch.empty(0)  # codecs with kernels need none

        def add(rows: Rows) -> None:
            codec.add(packed[rows], FACTOR, self.decoded[rows], scratch)

        return {
            "encode": (fp32_bytes + packed.numel(), lambda rows: codec.encode(self.values[rows], packed[rows])),
            "decode": (packed.numel() + fp32_bytes, lambda rows: codec.decode(packed[rows], self.decoded[rows])),
            "add": (packed.numel() + round(2 * fp32_bytes * (LINES_TOUCHED if codec.name == "topk" else 1)), add),
        }


def measure(codecs: Sequence[Codec], num_chunks: int, num_threads: int, num_rounds: int) -> tuple[list[Row], list[float]]:
    """Every verb of every codec, and the rates of the copies. The first round is warm-up."""
    bench = Bench(num_chunks, num_threads, codecs)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    copies: list[float] = []
    for number in range(num_rounds + 1):
        for codec in codecs:
            for verb, (moved_bytes, work) in bench.verbs(codec).items():
                copies.append(bench.copy_bytes_per_s())
                took_s = bench.seconds(work)
                sizes[codec.name, verb] = bench.packed(codec).numel(), moved_bytes
                if number:
                    found.setdefault((codec.name, verb), []).append((took_s, moved_bytes / took_s / copies[-1]))
    rows = [Row(*key, *sizes[key], *zip(*pairs, strict=True)) for key, pairs in found.items()]
    return rows, copies


def lines_of(rows: Sequence[Row], copies: Sequence[float], num_elements: int) -> list[str]:
    """The table."""
    low, middle, high = min(copies) / 1e9, statistics.median(copies) / 1e9, max(copies) / 1e9
    lines = [f"copy {middle:.1f} GB/s read and written ({low:.1f} to {high:.1f})"]
    lines.append("codec   verb    bits an element       ms   GB/s of fp32   GB/s moved   share of copy   (least to largest)")
    for row in rows:
        seconds, share = statistics.median(row.seconds), statistics.median(row.shares)
        bits = 8 * row.packed_bytes / num_elements
        lines.append(
            f"{row.codec:<7} {row.verb:<7} {bits:>15.3f} {seconds * 1e3:>8.1f} {4 * num_elements / seconds / 1e9:>14.1f}"
            f" {row.moved_bytes / seconds / 1e9:>12.1f} {share:>15.2f}   ({min(row.shares):.2f} to {max(row.shares):.2f})"
        )
    return lines


def commit() -> str:
    """Short id of the commit at work; + where files differ from it."""
    asked = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return asked.stdout.strip() or "unknown"


def processor() -> str:
    """As the kernel names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=float, default=100.0, help="millions of fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--codecs", default="", help="names with commas between; all by default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    known = build.codecs()
    names = options.codecs.split(",") if options.codecs else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--codecs {','.join(unknown)} is not known; use some of {', '.join(known)}")
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    num_chunks = round(options.params * 1e6) // CHUNK_ELEMENTS
    rows, copies = measure([known[name] for name in names], num_chunks, options.threads, options.rounds)
    amount = f"{num_chunks * CHUNK_ELEMENTS:,} fp32, median of {options.rounds} rounds"
    head = (
        f"python -m sims.benchmarks.codec {' '.join(sys.argv[1:])}".strip(),
        f"commit {commit()}; {processor()}, {os.cpu_count()} cores; {options.threads} threads, {amount}; load before {load:.2f}",
    )
    text = "\n".join((*head, *lines_of(rows, copies, num_chunks * CHUNK_ELEMENTS)))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
