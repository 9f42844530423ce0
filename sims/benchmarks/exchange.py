"""How fast a pseudo-gradient is averaged: decentra, hivemind's averager, gloo's all_reduce and the raw link, side by side.

    python -m sims.benchmarks.exchange [--peers 2,4,8] [--params 12.5,50] [--link loopback,1000mbit,100mbit] [--quick]

Each peer is a process. decentra's is the node daemon's code, TLS on, int8 both ways, its store on a memory file system,
around a trainer that costs nothing. Links other than loopback are network namespaces shaped by tbf (root only). Every
average is checked by value; one that does not hold is no result. All peers start a round together.

Seconds of decentra run from the last pseudo-gradient in fp32 to the last peer that holds all averaged blobs under a
certificate (no apply, no state hash). `exchange` begins later, when the last offer is made: then all contributions are
ready. Shares are payload bytes sent by one peer over that time, of one way of the raw link. hivemind's matchmaking is left
out. hivemind's 8-bit codecs need numpy < 2.4, and bw8 bitsandbytes: --install-for-hivemind puts both into the cache folder,
for its processes alone.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from sims.benchmarks.crew import Crew, CrewError
from sims.benchmarks.links import Link, Places, nominal_bytes_per_s, raw_bytes_per_s

MARKS = ("trained", "offered", "closed", "proposed", "certified", "applied")
PHASES = {"offered": "encode", "closed": "transfer", "proposed": "reduce", "certified": "ballot", "applied": "apply"}
START_S, ROUND_S = 90.0, 240.0
CODECS = {"loopback": "fp16,u8,bw8", "1000mbit": "none,u8,bw8", "100mbit": "u8,bw8"}
WIRE_BYTES = {"none": 4.0, "fp16": 2.0, "u8": 1.0, "bw8": 1.0}
"""Bytes an element on hivemind's wire, scales left out."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One set-up that all of them are measured in."""

    peers: int
    params: int
    link: str
    rounds: int


def decentra(cell: Cell, places: Places, state: Path) -> Row:
    """Medians over the rounds after the first, which is warm-up."""
    modules = ["sims.benchmarks.exchange_peer"]
    arguments = [str(cell.peers), str(cell.params)]
    commands = [[*modules, str(i), *arguments, _address(places, i), str(state / str(i)), "int8"] for i in range(cell.peers)]
    with Crew(commands, places.namespaces, {}) as crew:
        crew.tell(crew.hear(START_S))
        crew.hear(START_S)
        rounds = []
        for _ in range(cell.rounds + 1):
            crew.tell("go")
            rounds.append(_decentra_round(crew.hear(ROUND_S)))
    row = {key: _median([each[key] for each in rounds[1:]]) for key in rounds[1]}
    faults = [each["fault"] for each in rounds if each["fault"]]
    return {**row, "fault": faults[0] if faults else "", "encoded_bytes": cell.params * (4096 + 64) / 4096}


def _decentra_round(peers: list[Any]) -> Row:
    marks = [peer["marks"] for peer in peers]
    last = {name: max(mark[name][0] for mark in marks) for name in MARKS}
    off = max(peer["error"] for peer in peers)
    whole = all(peer["averaged"] == len(peers) for peer in peers)
    row: Row = {
        "seconds": last["certified"] - last["trained"],
        "exchange_s": last["certified"] - last["offered"],
        "wire_bytes": max(peer["bytes_up"] for peer in peers),
        "fsync_s": max(peer["fsync_s"] for peer in peers),
        "write_s": max(peer["write_s"] for peer in peers),
        "attempts": max(peer["attempts"] for peer in peers),
        "memory_bytes": max(mark["certified"][2] - peer["floor"] for mark, peer in zip(marks, peers, strict=True)),
        "memory_apply_bytes": max(mark["applied"][2] - peer["floor"] for mark, peer in zip(marks, peers, strict=True)),
        "fault": "" if whole and off < 0.1 else f"averaged {[peer['averaged'] for peer in peers]}, off by {off:.3f}",
    }
    for before, name in itertools.pairwise(MARKS):
        row[f"{PHASES[name]}_s"] = last[name] - last[before]
        row[f"{PHASES[name]}_cpu_s"] = sum(mark[name][1] - mark[before][1] for mark in marks)
    return row


def _median(values: list[Any]) -> Any:
    return statistics.median(values) if isinstance(values[0], int | float) else values[0]


def gloo(cell: Cell, places: Places) -> Row:
    """all_reduce of fp32."""
    port = str(random.randint(29000, 32000))
    commands = [_rival("gloo", cell, i, places.addresses[0], places.interface, port) for i in range(cell.peers)]
    with Crew(commands, places.namespaces, {}) as crew:
        row = _rival_rounds(crew, cell.rounds)
    return {**row, "wire_bytes": 2 * (cell.peers - 1) / cell.peers * 4 * cell.params}


def hivemind(cell: Cell, places: Places, codec: str, environment: dict[str, str]) -> Row:
    """Its averager with one codec, in processes of its own: one that hangs takes no other along."""
    commands = [_rival("hivemind", cell, i, _address(places, i), codec) for i in range(cell.peers)]
    with Crew(commands, places.namespaces, environment) as crew:
        crew.tell(crew.hear(START_S)[0])
        row = _rival_rounds(crew, min(cell.rounds, 2))
    return {**row, "wire_bytes": 2 * (cell.peers - 1) / cell.peers * WIRE_BYTES[codec] * cell.params}


def _rival(kind: str, cell: Cell, number: int, *more: str) -> list[str]:
    return ["sims.benchmarks.exchange_rivals", kind, str(number), str(cell.peers), str(cell.params), *more]


def _rival_rounds(crew: Crew, count: int) -> Row:
    rounds = []
    for _ in range(count + 1):
        crew.hear(START_S)
        crew.tell("go")
        peers = crew.hear(ROUND_S)
        matchmaking_s = max(peer["matchmaking_s"] for peer in peers)
        rounds.append(
            {
                "seconds": max(peer["end"] for peer in peers) - max(peer["start"] for peer in peers) - matchmaking_s,
                "matchmaking_s": matchmaking_s,
                "cpu_s": sum(peer["cpu_s"] for peer in peers),
                "fault": next((peer["fault"] for peer in peers if peer["fault"]), ""),
            }
        )
    crew.hear(START_S)
    crew.tell("stop")
    row = {key: _median([each[key] for each in rounds[1:]]) for key in rounds[0]}
    return {**row, "fault": next((each["fault"] for each in rounds[1:] if each["fault"]), "")}


def _address(places: Places, number: int) -> str:
    return places.addresses[number]


# -- one cell -----------------------------------------------------------------------------------------------------------


def measure(cell: Cell, rivals: bool, environment: dict[str, str], codecs: str) -> list[Row]:
    """A row each for decentra and its rivals. The raw limit is the best of before, after and what a shaped link carries by its rate."""
    rows: list[Row] = []

    def add(name: str, work: Any) -> None:
        try:
            row = work()
        except CrewError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)  # what a table is to keep says nothing of this machine
            row = {"fault": error.what}
        load = os.getloadavg()[0]
        rows.append({"name": name, "peers": cell.peers, "params": cell.params, "link": cell.link, "load": load, **row})

    with Link(cell.link, cell.peers) as places, tempfile.TemporaryDirectory(prefix="decentra-exchange-", dir=_memory_folder()) as folder:
        limits = [nominal_bytes_per_s(cell.link), raw_bytes_per_s(cell.link, places)]
        add("decentra", lambda: decentra(cell, places, Path(folder)))
        if rivals:
            add("gloo fp32", lambda: gloo(cell, places))
            for name in codecs.split(","):
                add(f"hivemind {name}", functools.partial(hivemind, cell, places, name, environment))
        limits.append(raw_bytes_per_s(cell.link, places))
    for row in rows:
        row["raw_bytes_per_s"] = max(limits)
        if not row["fault"]:
            row["share"] = row["wire_bytes"] / row.get("exchange_s", row["seconds"]) / max(limits)
            row["share_whole"] = row["wire_bytes"] / row["seconds"] / max(limits)
    return rows


def _memory_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def lines_of(rows: list[Row]) -> list[str]:
    """The table of one cell."""
    head, limit = rows[0], rows[0]["raw_bytes_per_s"]
    lines = [f"{head['peers']} peers, {head['params'] / 1e6:g}M parameters, {head['link']}: raw {limit / 1e6:,.0f} MB/s each way"]
    lines.append(f"  {'':<14} {'seconds':>8} {'wire MB':>8} {'share':>6} {'CPU s':>7} {'load':>5}")
    for row in rows:
        if row["fault"]:
            lines.append(f"  {row['name']:<14} no result: {row['fault']}")
            continue
        cpu = row.get("cpu_s", sum(row.get(f"{phase}_cpu_s", 0.0) for phase in ("encode", "transfer", "reduce", "ballot")))
        figures = f"{row['seconds']:>8.3f} {row['wire_bytes'] / 1e6:>8.1f} {row['share_whole']:>6.1%} {cpu:>7.2f} {row['load']:>5.1f}"
        lines.append(f"  {row['name']:<14} {figures}")
    return lines if head["fault"] else [*lines, *_details(head), *_ratios(rows)]


def _details(row: Row) -> list[str]:
    phases = [f"{phase} {row[f'{phase}_s']:.3f} / {row[f'{phase}_cpu_s']:.2f}" for phase in PHASES.values()]
    more = f"exchange {row['exchange_s']:.3f} s, {row['share']:.1%} of raw; fsync {row['fsync_s']:.3f} s of {row['write_s']:.3f} s writing"
    encoded = row["encoded_bytes"]
    memory = f"peak memory {row['memory_bytes'] / 1e6:,.0f} MB = {row['memory_bytes'] / encoded:.1f} encoded payloads"
    apply = f"with apply {row['memory_apply_bytes'] / encoded:.1f}"
    return [f"  decentra, wall / CPU s by phase: {', '.join(phases)}", f"  {more}", f"  {memory}, {apply}; attempts {row['attempts']:g}"]


def _ratios(rows: list[Row]) -> list[str]:
    ours, good = rows[0], [row for row in rows[1:] if not row["fault"]]
    best: dict[str, Row] = {}
    for row in sorted(good, key=lambda row: float(row["seconds"])):
        best.setdefault(row["name"].split()[0], row)
    if not best:
        return []
    return ["  " + "; ".join(f"{row['seconds'] / ours['seconds']:.2f} x as fast as {row['name']}" for row in best.values())]


# -- the whole ----------------------------------------------------------------------------------------------------------


def cells(options: argparse.Namespace) -> list[Cell]:
    """What was asked for. At 100 mbit only the smaller model, unless it is named: fp32 needs half a minute a round."""
    found = []
    for link in options.link.split(","):
        for params in (float(text) for text in (options.params or ("12.5" if link == "100mbit" else "12.5,50")).split(",")):
            found += [Cell(int(peers), int(params * 1e6), link, options.rounds) for peers in options.peers.split(",")]
    return found


def usable(codecs: str, environment: dict[str, str]) -> str:
    """Those of hivemind's codecs that truly average here; the others would keep the run waiting."""
    old_numpy = tuple(int(part) for part in numpy.__version__.split(".")[:2]) < (2, 4)
    quantized = bool(environment) or old_numpy
    blockwise = bool(environment) or (old_numpy and importlib.util.find_spec("bitsandbytes") is not None)
    works = {"none": True, "fp16": True, "u8": quantized, "bw8": blockwise}
    return ",".join(name for name in codecs.split(",") if works[name]) or "fp16"


def packages_for_hivemind(options: argparse.Namespace) -> dict[str, str]:
    """The environment of hivemind's processes."""
    version = tuple(int(part) for part in numpy.__version__.split(".")[:2])
    path = os.environ.get("PYTHONPATH", "")
    folder = options.cache / "hivemind-packages"
    if not folder.exists():
        if not options.install_for_hivemind:
            return {}
        wanted = ["numpy<2.4"] if version >= (2, 4) else []
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *wanted, "bitsandbytes"]
        subprocess.run(install, check=True)
    return {"PYTHONPATH": os.pathsep.join([str(folder.resolve()), path])}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="2,4,8")
    parser.add_argument("--params", default="", help="millions, separated by commas")
    parser.add_argument("--link", default="loopback,1000mbit,100mbit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--codecs", default="", help="of hivemind: none,fp16,u8,bw8")
    parser.add_argument("--only-decentra", action="store_true")
    parser.add_argument("--quick", action="store_true", help="2 and 4 peers, loopback 50M and 1000mbit 12.5M, fewer codecs and rounds")
    parser.add_argument("--install-for-hivemind", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path(".data"))
    parser.add_argument("--out", type=Path, help="write the table here and its rows beside it as .jsonl")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # processes and namespaces go with this one
    plan = cells(options)
    if options.quick:
        plan = [Cell(peers, params, link, 2) for link, params in (("loopback", 50_000_000), ("1000mbit", 12_500_000)) for peers in (2, 4)]
    environment = packages_for_hivemind(options)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    text = [f"exchange at commit {commit}: python -m sims.benchmarks.exchange {' '.join(sys.argv[1:])}"]
    rounds = f"medians of {plan[0].rounds} rounds, hivemind's of {min(2, plan[0].rounds)}"
    text.append(f"{platform.machine()}, {os.cpu_count()} cores; decentra int8 with TLS; seconds are {rounds}")
    print("\n".join(text), flush=True)
    rows, start = [], time.monotonic()
    for cell in plan:
        codecs = options.codecs or ("bw8" if options.quick else CODECS.get(cell.link, "u8,bw8"))
        measured = measure(cell, not options.only_decentra, environment, usable(codecs, environment))
        rows += measured
        text += lines_of(measured)
        print("\n".join(lines_of(measured)), flush=True)
        _keep(options.out, text, rows, commit)
    text.append(f"whole run {time.monotonic() - start:.0f} s, load at its end {os.getloadavg()[0]:.1f}")
    print(text[-1])
    _keep(options.out, text, rows, commit)


def _keep(out: Path | None, text: list[str], rows: list[Row], commit: str) -> None:
    if out is not None:
        out.write_text("\n".join(text) + "\n")
        out.with_suffix(".jsonl").write_text("".join(json.dumps({"commit": commit, **row}) + "\n" for row in rows))


if __name__ == "__main__":
    main()
