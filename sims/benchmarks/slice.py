"""Where a round's time and bytes go, and what the swarm costs its trainers.

    python -m sims.benchmarks.slice [--peers 2] [--rounds 12] [--link 100mbit,50ms]

Runs real daemons on this machine and, before and after, the same trainer without a swarm: alone, and as many side by
side as there are peers. Prints one table; `--out` keeps it. Shares are of the wall time of the peers' rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from decentra import build
from decentra.config import run_bytes, run_from_bytes
from decentra.observe.summary import mean_times
from decentra.sim.demo import Settings, demo_run
from decentra.sim.offline import open_state
from decentra.sim.processes import Play, ProcessSwarm

PLAIN_STEPS = 60
WARMUP_STEPS = 10
PHASES = ("compute", "encode", "wait", "transfer", "reduce", "ballot", "apply")


def plain(config_path: Path, data_dir: Path) -> None:
    """A trainer without a swarm, one thread: prints tokens a second."""
    import time

    import torch

    from decentra.train.loop import train_plain

    torch.set_num_threads(1)
    os.nice(5)
    config = run_from_bytes(config_path.read_bytes())
    replica, source, _ = build.outfit(config, data_dir)
    train_plain(replica, source, WARMUP_STEPS)
    start = time.perf_counter()
    train_plain(replica, source, PLAIN_STEPS, start_step=WARMUP_STEPS)
    tokens = PLAIN_STEPS * config.inner.batch_samples * config.data.context
    print(tokens / (time.perf_counter() - start))


def plain_rates(count: int, config_path: Path, data_dir: Path) -> list[float]:
    """Tokens a second of `count` plain trainers at once."""
    command = [sys.executable, "-m", "sims.benchmarks.slice", "--plain", str(config_path), str(data_dir)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    return [float(process.communicate()[0]) for process in running]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--link", default="100mbit,50ms")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plain", nargs=2, metavar=("CONFIG", "DATA"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain(Path(options.plain[0]), Path(options.plain[1]))
        return
    folder = Path(tempfile.mkdtemp(prefix="decentra-slice-"))
    try:
        lines = measure(options.peers, options.rounds, options.link, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = "\n".join(lines)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def measure(peers: int, rounds: int, link: str, folder: Path) -> list[str]:
    """The lines of the table."""
    settings = Settings(peers, rounds, link, "int8", folder / "swarm", Path(".data"), 0, 900.0)
    run = dataclasses.replace(demo_run(settings), eval_samples=8)
    settings.out.mkdir()
    config_path, data_dir = folder / "run.json", build.text(run, settings.cache).files["train.bin"].parent
    config_path.write_bytes(run_bytes(run))
    alone = plain_rates(1, config_path, data_dir) + plain_rates(1, config_path, data_dir)
    beside = plain_rates(peers, config_path, data_dir)
    ended, swarm = asyncio.run(_play(Play(run, peers, link, settings.out, settings.cache, -1, -1, 900.0)))
    beside += plain_rates(peers, config_path, data_dir)
    counted = [r for s in ended for r in [r for r in s["rounds"] if r["sync"] is not None][1:]]
    times = mean_times(counted)
    whole = times["round"]
    inner = sum(s["tokens_committed"] / peers for s in ended) / sum(s["compute_s"] for s in ended)
    overall = sum(r["tokens"] for r in counted) / peers / sum(r["times_s"]["round"] for r in counted)
    _, encoded = open_state(swarm.daemons[0].state).run.contribution_bytes()
    formula, sent = 2 * (peers - 1) / peers * encoded, sum(r["bytes_up"] for r in counted) / len(counted)
    side = sum(beside) / len(beside)
    return [
        f"slice: {peers} peers, {rounds} outer steps, link {link}, int8, 2.7M parameters, H = {run.outer.inner_steps}; "
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "phase      s a round   share",
        *(f"{name:<9} {times.get(name, 0.0):>9.3f}   {times.get(name, 0.0) / whole:>6.1%}" for name in PHASES),
        f"{'round':<9} {whole:>9.3f}   100.0%",
        f"bytes up a round and peer: {sent:,.0f}; formula 2(N-1)/N x {encoded:,} = {formula:,.0f}; ratio {sent / formula:.4f}",
        f"tokens/s of one trainer: alone {sum(alone) / len(alone):,.0f}; {peers} side by side {side:,.0f} each",
        f"in the swarm: in inner steps {inner:,.0f} ({inner / side:.1%} of side by side), "
        f"over the whole round {overall:,.0f} ({overall / side:.1%})",
    ]


async def _play(play: Play) -> tuple[list[dict], ProcessSwarm]:  # type: ignore[type-arg]
    async with ProcessSwarm(play, build.wiring(), lambda *_: None) as swarm:
        await swarm.begin()
        await swarm.watch(build.decode_door(swarm.join_string))
    return swarm.final_statuses()[0], swarm


if __name__ == "__main__":
    main()
