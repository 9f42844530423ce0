"""How many bits do the indices of 64 elements of 4,096 take, in which code, and at which speed?

    python -m sims.experiments.index_codes [--chunks 2000]

Sets of indices of the largest magnitudes: of independent elements (whatever their distribution, every set is equally likely) and
of chunks with large rows or runs, as embeddings and norms have. Prints mean and largest bits an index, and nanoseconds an index of
encoding and decoding for the codes written in C beside this file. `fixed` codes have one size for every set.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

K, ELEMENTS, BYTES = 64, 4096, 2048
BOUND = math.log2(math.comb(ELEMENTS, K)) / K


def sources(chunks: int, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (chunks, 64) ascending indices)."""
    shape = (chunks, ELEMENTS)
    rows = np.repeat(np.exp(rng.standard_normal((chunks, 16))), 256, axis=1)
    narrow = np.repeat(np.exp(1.5 * rng.standard_normal((chunks, 64))), 64, axis=1)
    run = np.where((np.arange(ELEMENTS) - rng.integers(0, ELEMENTS - 256, (chunks, 1))) % ELEMENTS < 256, 10.0, 1.0)
    normal = rng.standard_normal(shape)
    made = {
        "normal": normal, "laplace": rng.laplace(size=shape), "student 3": rng.standard_t(3, size=shape),
        "rows of 256": normal * rows, "rows of 64": normal * narrow, "one run of 256": normal * run,
    }  # fmt: skip
    for name, values in made.items():
        yield name, np.sort(np.argpartition(-np.abs(values), K, axis=1)[:, :K], axis=1)


def sizes(indices: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(code, bits of each set), without writing them."""
    gaps = np.diff(indices, axis=1, prepend=-1) - 1
    rice = {low: ((gaps >> low) + 1 + low).sum(axis=1) for low in range(3, 9)}
    for low in (5, 6):
        yield f"Golomb-Rice, {low} low bits", rice[low]
    yield "Golomb-Rice, best of each chunk", np.min(list(rice.values()), axis=0) + 3
    count = np.stack([np.bincount(row >> 6, minlength=64) for row in indices])
    yield "64 counts in unary, sparse or bitmap", 128 + np.where(count > 10, 64, 6 * count).sum(axis=1)
    chosen = np.vectorize(lambda n: math.log2(math.comb(64, n)))(np.arange(65))
    yield "64 counts in unary, enumerated buckets", 128 + np.ceil(chosen[count].sum(axis=1))
    for low in (5, 6, 7):
        yield f"Elias-Fano, {low} low bits (fixed)", np.full(len(indices), K * low + K + (ELEMENTS >> low))
    yield "enumerated as a whole (fixed)", np.full(len(indices), math.ceil(BOUND * K))
    yield "12 bits (fixed)", np.full(len(indices), 12 * K)


def compiled(folder: Path) -> ctypes.CDLL:
    """The C codes, built for this machine."""
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", folder / "codes.so", source], check=True)
    return ctypes.CDLL(str(folder / "codes.so"))


def timed(library: ctypes.CDLL, code: str, indices: np.ndarray, low: int) -> tuple[float, float]:
    """Nanoseconds an index of encoding and decoding, best of 5; what comes back is what went in."""
    given, found = np.ascontiguousarray(indices, np.uint16), np.zeros(indices.shape, np.uint16)
    packed = np.zeros(len(given) * BYTES + 8, np.uint8)
    best = [math.inf, math.inf]
    for _ in range(5):
        for way, (verb, first, second) in enumerate((("encode", given, packed), ("decode", packed, found))):
            start = time.perf_counter()
            getattr(library, f"{code}_{verb}")(first.ctypes.data_as(ctypes.c_void_p), second.ctypes.data_as(ctypes.c_void_p),
                                               ctypes.c_int64(len(given)), low)  # fmt: skip
            best[way] = min(best[way], (time.perf_counter() - start) / given.size * 1e9)
    assert (found == given).all()
    return best[0], best[1]


def enumerated(indices: np.ndarray) -> tuple[float, float]:
    """Nanoseconds an index of numbering a set among all, and back, in Python's integers."""
    table = [[math.comb(n, k) for n in range(ELEMENTS)] for k in range(K + 1)]
    start = time.perf_counter()
    numbers = [sum(table[k + 1][index] for k, index in enumerate(row)) for row in indices.tolist()]
    middle = time.perf_counter()
    for number, row in zip(numbers, indices.tolist(), strict=True):
        for k in range(K, 0, -1):
            low, high = k - 1, ELEMENTS
            while high - low > 1:
                half = (low + high) // 2
                low, high = (half, high) if table[k][half] <= number else (low, half)
            number -= table[k][low]
            assert low == row[k - 1]
    return (middle - start) / indices.size * 1e9, (time.perf_counter() - middle) / indices.size * 1e9


def main() -> None:
    """Two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=2000)
    options = parser.parse_args()
    found = dict(sources(options.chunks, np.random.default_rng(0)))
    table = {name: dict(sizes(indices)) for name, indices in found.items()}
    print(f"bits an index: mean (largest) over {options.chunks} chunks; all sets being equally likely, no code beats {BOUND:.2f}\n")
    print(f"{'':40}" + "".join(f"{name:>16}" for name in table))
    for code in table["normal"]:
        cells = (f"{bits[code].mean() / K:.2f} ({bits[code].max() / K:.2f})" for bits in table.values())
        print(f"{code:40}" + "".join(f"{cell:>16}" for cell in cells))
    print(f"\n{'ns an index (normal)':40}{'encode':>16}{'decode':>16}")
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        for name, code, low in (("Golomb-Rice, 5 low bits", "rice", 5), ("Elias-Fano, 6 low bits", "elias_fano", 6)):
            print(f"{name:40}" + "".join(f"{ns:16.1f}" for ns in timed(library, code, found["normal"], low)))
    print(f"{'enumerated, in Python':40}" + "".join(f"{ns:16.0f}" for ns in enumerated(found["normal"][:20])))


if __name__ == "__main__":
    main()
