"""Many schedules: play each seed, judge it, and say how to play it again."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from sims.experiments.protocol_fuzz.planted import PLANTED
from sims.experiments.protocol_fuzz.schedule import Schedule, Shape
from sims.experiments.protocol_fuzz.swarm import Swarm, play

COMMAND = "python -m sims.experiments.protocol_fuzz"
HANGS_AFTER_CPU_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed. fault: "" where nothing is wrong. trace_digest names every note, event and hash."""

    seed: int
    peers: int
    rounds: int
    syncs: int
    events: int
    cpu_s: float
    virtual_s: float
    fault: str
    detail: str
    trace_digest: str
    trace: tuple[str, ...]


def run_seed(seed: int) -> Swarm:
    """Play one schedule. Raises what went wrong."""
    shape = Shape.of(seed)
    swarm = shape.swarm()
    return play(swarm, Schedule(shape, swarm))


def judge(seed: int, keep_trace: bool = False) -> Outcome:
    """Play one schedule, and take what went wrong as data."""
    shape = Shape.of(seed)
    swarm = shape.swarm()
    start_s, fault, detail = time.process_time(), "", ""
    try:
        with _limited(HANGS_AFTER_CPU_S):
            play(swarm, Schedule(shape, swarm))
    except _Hangs:
        fault = f"Hangs: {HANGS_AFTER_CPU_S:.0f} CPU seconds at one seed"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        fault = f"{type(error).__name__}: {str(error) or repr(error)}".splitlines()[0][:600]
        detail = "".join(traceback.format_exception(error))
    watch = swarm.watch
    return Outcome(
        seed=seed,
        peers=len(swarm.nodes),
        rounds=len(watch.entries),
        syncs=watch.newest().sync if watch.states else 0,
        events=watch.num_events,
        cpu_s=time.process_time() - start_s,
        virtual_s=float(swarm.trace[-1].split()[0]) if swarm.trace else 0.0,
        fault=fault,
        detail=detail,
        trace_digest=trace_digest(swarm),
        trace=tuple(swarm.trace) if keep_trace else (),
    )


class _Hangs(KeyboardInterrupt):
    """As an interrupt, because tasks keep every other exception to themselves."""


@contextlib.contextmanager
def _limited(cpu_s: float) -> Iterator[None]:
    """Raise _Hangs after so much CPU time: a swarm may spin without its clock moving."""

    def hangs(*_: object) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def replay_command(seed: int, planted: str = "") -> str:
    """What plays a seed again, event by event."""
    return f"{COMMAND} --seeds 1 --first-seed {seed} --trace" + (f' --planted "{planted}"' if planted else "")


def trace_digest(swarm: Swarm) -> str:
    """Names what happened: every note and event with its time, every hash."""
    text = "\n".join([*swarm.trace, *(f"{r} {h.hex()}" for r, h in sorted(swarm.watch.hashes.items()))])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def outcomes(seeds: range, processes: int, keep_trace: bool = False, planted: str = "") -> Iterator[Outcome]:
    """The outcome of each seed, in order; with a planted bug where one is named."""
    work = [(seed, keep_trace, planted) for seed in seeds]
    if processes <= 1 or len(seeds) == 1:
        _prepare()
        yield from map(_play, work)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _prepare) as pool:
        yield from pool.map(_play, work, chunksize=4)


def _prepare() -> None:
    torch.set_num_threads(1)
    # A swarm is all garbage at its end and little before: the collector need not look so often.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _play(work: tuple[int, bool, str]) -> Outcome:
    seed, keep_trace, planted = work
    with PLANTED[planted]() if planted else contextlib.nullcontext():
        return judge(seed, keep_trace)
