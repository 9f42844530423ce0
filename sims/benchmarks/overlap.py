"""Does a round that takes half of a slot on the wire cost the trainer anything beside it?

    python -m sims.benchmarks.overlap [--blocks 3] [--slots 8] [--slot-steps 60] [--out FILE]

Asked: tokens/s of a trainer in a swarm are at least 97 % of those of the same trainer beside a neighbour that moves the same
bytes through memory. In each block, one after the other:

  solo       the trainer without a swarm
  neighbour  the same, beside a process that moves a round's bytes, sent and received, through memory in every slot
  swarm      two real daemons, gRPC with TLS on loopback, links shaped in user space so that a round takes about half of a slot;
             tau is nine tenths of the slot

On two cores: the trainer that is measured has core 1 for itself; its daemon, the neighbour and the whole other node are pinned to
core 0. The other node is a real one, but its trainer sleeps through its inner steps, a tenth shorter than real ones, so that it
neither takes a core nor is waited for: what it sends is encoded and travels like any other contribution. Rates are wall time from
the end of one inner step to the end of that a slot later, whatever came between: reports to the daemon, taking over, evaluation,
waiting for a round. Medians over all slots but the first two of each start; inner: by the time in inner steps alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from decentra import build
from decentra.config import CodecConfig, DataConfig, InnerConfig, OuterConfig, RunConfig, check_run, run_bytes
from decentra.model.presets import preset
from decentra.observe.summary import mean_times
from decentra.sim.daemons import last_line
from decentra.sim.processes import run_toml
from decentra.transport.base import FRAME_BYTES
from sims.benchmarks.codec import commit, processor
from sims.benchmarks.overlap_node import Settings

WANTED = 0.97
FOREIGN_CORE, TRAINER_CORE = 0, 1
WARMUP_SLOTS = 2
DELAY_S, DELAYS = 0.01, 17
"""One-way delay of the links, and how many of them a round takes one after the other."""
ON_THE_WIRE, FAIR_SHARES = 0.5, (0.4, 0.65)
"""What the links are made for, and what a round may really take: where the machine's other load comes or goes, the slot changes."""

SLEEP_SHARE = 0.9
START_LIMIT_S = 120.0
CACHE = Path(".data")


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens a second of each slot: whole by wall time, inner by the time in inner steps."""

    whole: tuple[float, ...]
    inner: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """Mean of the rounds of a swarm as the measured node saw them. wire_s: from the last offer to the commit. overrun_s: in which
    the trainer stood still after its overlap steps, for the round or for the other node."""

    wire_s: float
    slot_s: float
    overrun_s: float
    bytes_up: float
    bytes_down: float


def run_of(slot_steps: int, slots: int) -> RunConfig:
    """Two members, a Llama of 2.7 million parameters, int8, one fragment."""
    run = RunConfig(
        name="overlap",
        start_members=2,
        stop_syncs=slots + WARMUP_SLOTS,
        eval_samples=1,
        model=preset("demo"),
        data=DataConfig(max_text_bytes=2_000_000),
        inner=InnerConfig(batch_samples=4),
        outer=OuterConfig(inner_steps=slot_steps, overlap_steps=slot_steps * 9 // 10),
        codec=CodecConfig(up="int8", down="int8"),
    )
    check_run(run, "sims.benchmarks.overlap")
    return run


def rates_of(steps: Path, slot_steps: int, tokens_a_step: int) -> Rates:
    """Of the whole slots in the lines of a trainer, after the first ones."""
    lines = [line.split() for line in steps.read_text().splitlines()]
    ends_s, took_s = [float(line[0]) for line in lines], [float(line[1]) for line in lines]
    firsts = range(WARMUP_SLOTS * slot_steps, len(lines) - slot_steps + 1, slot_steps)
    tokens = slot_steps * tokens_a_step
    return Rates(
        tuple(tokens / (ends_s[first + slot_steps - 1] - ends_s[first - 1]) for first in firsts),
        tuple(tokens / sum(took_s[first : first + slot_steps]) for first in firsts),
    )


class Bench:
    """What all blocks share: the run, its text, and a folder."""

    def __init__(self, run: RunConfig, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.text = build.text(run, CACHE)
        self.slot_steps = run.outer.slot_steps
        self.tokens_a_step = run.inner.batch_samples * run.data.context
        codec = build.codecs()[run.codec.up]
        self.round_bytes = 2 * self.text.layout.num_chunks * codec.chunk_bytes
        """Sent and received in a round: of two members each gets half of the other's contribution, and then half of the average."""
        (folder / "run.json").write_bytes(run_bytes(run))
        (folder / "run.toml").write_text(run_toml(run))

    def plain(self, name: str) -> Rates:
        """The trainer without a swarm, as many steps as in it."""
        steps = self.folder / f"{name}.steps"
        settings = Settings(TRAINER_CORE, -1, str(steps))
        arguments = [self.folder / "run.json", self.text.files["train.bin"].parent, self.run.stop_syncs * self.slot_steps]
        process = self._start("plain", settings, *arguments, log=f"{name}.log")
        if process.wait():
            raise RuntimeError(f"the trainer failed: {last_line(self.folder / f'{name}.log')}")
        return rates_of(steps, self.slot_steps, self.tokens_a_step)

    def beside_mover(self, name: str, slot_s: float) -> Rates:
        """The trainer beside the neighbour."""
        mover = self._start("mover", Settings(FOREIGN_CORE, -1, ""), self.round_bytes, slot_s, log=f"{name}-mover.log")
        try:
            rates = self.plain(name)
            if mover.poll() is not None:
                raise RuntimeError(f"the neighbour ended: {last_line(self.folder / f'{name}-mover.log')}")
            return rates
        finally:
            mover.kill()
            mover.wait()

    def swarm(self, name: str, link: str, step_s: float) -> tuple[Rates, Round]:
        """The trainer in a swarm. Raises RuntimeError where that does not come to its end."""
        steps, own, other = (self.folder / f"{name}{tail}" for tail in (".steps", "-0", "-1"))
        first = Settings(FOREIGN_CORE, TRAINER_CORE, str(steps))
        second = Settings(FOREIGN_CORE, FOREIGN_CORE, str(self.folder / f"{name}-1.steps"), SLEEP_SHARE * step_s)
        limit_s = START_LIMIT_S + 4 * self.run.stop_syncs * self.slot_steps * step_s
        shared = ["--link", link, "--state"]
        with contextlib.ExitStack() as ending:
            founder = self._start("node", first, "--run", self.folder / "run.toml", "--cache", CACHE, *shared, own, log=f"{name}-0.log")
            ending.callback(_end, founder)
            joining = _wait_for(own / "join.txt", founder, self.folder / f"{name}-0.log")
            joiner = self._start("node", second, "--join", joining, *shared, other, log=f"{name}-1.log")
            ending.callback(_end, joiner)
            try:
                code = founder.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = -1
            if code:
                raise RuntimeError(f"the swarm did not end well in {limit_s:.0f} s: {last_line(self.folder / f'{name}-0.log')}")
        return rates_of(steps, self.slot_steps, self.tokens_a_step), _round_of(own / "status.json")

    def _start(self, what: str, settings: Settings, *arguments: object, log: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sims.benchmarks.overlap_node", what, settings.text(), *map(str, arguments)]
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_LIMIT_S
    while not path.exists() or not path.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the founder did not start: {last_line(log)}")
        time.sleep(0.1)
    return path.read_text()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(15.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _round_of(status: Path) -> Round:
    counted = [each for each in json.loads(status.read_text())["rounds"] if each["sync"] is not None][WARMUP_SLOTS:]
    times = mean_times(counted)
    wire_s = sum(times[name] for name in ("transfer", "reduce", "ballot", "apply"))
    sent, received = (statistics.fmean(each[key] for each in counted) for key in ("bytes_up", "bytes_down"))
    return Round(wire_s, times["round"], times["overrun"], sent, received)


def measure(bench: Bench, blocks: int) -> Iterator[str]:
    """The lines of the table."""
    found: dict[str, list[Rates]] = {"solo": [], "neighbour": [], "swarm": []}
    rounds: list[Round] = []
    link = ""
    for block in range(blocks):
        found["solo"].append(bench.plain(f"solo{block}"))
        step_s = bench.tokens_a_step / statistics.median(found["solo"][0].whole)
        slot_s = step_s * bench.slot_steps
        # From the first block on the same for all: what is compared must not move.
        link = link or link_for(bench.round_bytes / 2, slot_s)
        found["neighbour"].append(bench.beside_mover(f"neighbour{block}", slot_s))
        rates, round_ = bench.swarm(f"swarm{block}", link, step_s)
        found["swarm"].append(rates)
        rounds.append(round_)
    yield from lines_of(found, rounds, link, bench.round_bytes)


def link_for(one_way_bytes: float, slot_s: float) -> str:
    """The link over which a round takes half of a slot.

    The shaper lets a frame take the sender's link and then the receiver's: in scatter and gather that costs a frame more each.
    """
    left_s = max(0.1 * slot_s, ON_THE_WIRE * slot_s - DELAYS * DELAY_S)
    return f"{(one_way_bytes + 2 * FRAME_BYTES) * 8e-6 / left_s:.2f}mbit,{DELAY_S * 1e3:g}ms"


def lines_of(found: dict[str, list[Rates]], rounds: Sequence[Round], link: str, round_bytes: int) -> Iterator[str]:
    """Medians over the slots of all blocks, the ratio and whether it is what was asked for."""
    yield f"{'':11}{'tokens/s':>10}{'inner':>10}{'least':>10}{'largest':>10}{'slots':>7}"
    medians = {}
    for name, rates in found.items():
        whole, inner = [rate for each in rates for rate in each.whole], [rate for each in rates for rate in each.inner]
        medians[name] = (statistics.median(whole), statistics.median(inner))
        yield f"{name:11}{medians[name][0]:10,.0f}{medians[name][1]:10,.0f}{min(whole):10,.0f}{max(whole):10,.0f}{len(whole):7}"
    seen = [statistics.fmean(getattr(each, field.name) for each in rounds) for field in dataclasses.fields(Round)]
    wire_s, slot_s, overrun_s, sent, received = seen
    yield (
        f"a round: {wire_s:.2f} s from last offer to commit, {wire_s / slot_s:.0%} of the {slot_s:.2f} s between commits, over {link}; "
        f"trainer waited {overrun_s:.3f} s a round"
    )
    yield f"bytes a round: sent {sent:,.0f}, received {received:,.0f}; the neighbour moves {round_bytes:,}"
    ratio, inner_ratio = (medians["swarm"][index] / medians["neighbour"][index] for index in (0, 1))
    verdict = "holds" if ratio >= WANTED else "FAILS"
    if not FAIR_SHARES[0] <= wire_s / slot_s <= FAIR_SHARES[1]:
        verdict = f"does not count: a round is to take {FAIR_SHARES[0]:.0%} to {FAIR_SHARES[1]:.0%} of a slot; is the machine quiet?"
    yield f"swarm / neighbour: {ratio:.1%} (asked: {WANTED:.0%}, {verdict}); in inner steps alone {inner_ratio:.1%}"
    yield f"swarm / solo: {medians['swarm'][0] / medians['solo'][0]:.1%}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--slots", type=int, default=8, help="measured in each mode of a block")
    parser.add_argument("--slot-steps", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.blocks < 1 or options.slots < 1 or options.slot_steps < 2:
        parser.error("--blocks and --slots must be at least 1, --slot-steps at least 2")
    if not {FOREIGN_CORE, TRAINER_CORE} <= os.sched_getaffinity(0):
        parser.error(f"this process may not use cores {FOREIGN_CORE} and {TRAINER_CORE}; run it where it may")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what it started ends with it
    load, start_s = os.getloadavg()[0], time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="dc-"))
    try:
        lines = list(measure(Bench(run_of(options.slot_steps, options.slots), folder), options.blocks))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    head = (
        f"python -m sims.benchmarks.overlap {' '.join(sys.argv[1:])}".strip(),
        f"commit {commit()}; {processor()}, {os.cpu_count()} cores, load before {load:.1f}, after {os.getloadavg()[0]:.1f}; "
        f"{time.monotonic() - start_s:.0f} s; 2 nodes, int8, 2.7M parameters, slots of {options.slot_steps} steps",
    )
    text = "\n".join((*head, *lines))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
