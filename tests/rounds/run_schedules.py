"""Random fault schedules by the hundred: python tests/rounds/run_schedules.py --seeds 500 [--first 0] [--trace].

A schedule never loses a quorum for good: machines may all lose their power, be cut off or stalled and come back as who
they were; files are lost, and members leave, only while the rest is whole and forms a quorum without them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from machines import Node
from swarm_harness import Swarm, play

from decentra.rounds.member import Member
from decentra.rounds.view import is_quorum

SYNCS = 12
CALM_S = 12.0
END_LIMIT_S = 1500.0
PHASES = ("votes", "the reductions", "owners to hold", "at attempt", "the offers of others", "moving", "accepted", "accepted")


class Schedule:
    """One seeded story: `await Schedule(swarm)()`."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.rng = random.Random(f"schedule/{swarm.seed}")
        self.disturbed_s = 0.0
        self.cut = False

    async def __call__(self, swarm: Swarm) -> None:
        rng = self.rng
        count = rng.randint(2, 7)
        await swarm.found(rng.choice((0.1, 0.2, 0.3)))
        for _ in range(count - 1):
            swarm.boot(swarm.new_node(rng.choice((0.1, 0.2, 0.3))))
        for _ in range(rng.randint(3, 14)):
            await self.sleep(rng.choice((0.05, 0.3, 1.0, 3.0, 8.0)) * (0.5 + rng.random()))
            if rng.random() < 0.3:
                await self.ambush()
            else:
                self.strike()
            swarm.check()
        await self.sleep(3.0)
        self.repair()
        await swarm.until(lambda: all(n.booting is None or n.booting.done() for n in swarm.nodes), END_LIMIT_S, "all joined")
        await swarm.finish(END_LIMIT_S)

    async def sleep(self, seconds: float) -> None:
        end = self.swarm.now() + seconds
        await self.swarm.until(lambda: self.swarm.now() >= end - 1e-9, seconds + 1)

    async def ambush(self) -> None:
        """Wait for a short phase of a round, then strike at who is in it."""
        swarm, rng = self.swarm, self.rng
        phase = rng.choice(PHASES)
        end = swarm.now() + 5.0
        while swarm.now() < end:
            found = [n for n in swarm.live() if not n.gone and n.task is not None and not n.task.done()]
            found = [n for n in found if self.is_in(n.member, phase)]
            if found:
                break
            await asyncio.sleep(0.003)
        else:
            return
        node = rng.choice(found)
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.03, 0.1)))
        if node.member is None or rng.random() < 0.2:
            self.strike()
            return
        self.disturbed_s = swarm.now()
        swarm.say(f"EVENT ambush {node.name} in {phase}")
        if phase == "accepted":
            self.shake()
            return
        if rng.random() < 0.6:
            swarm.kill(node)
            return
        swarm.isolate(node)
        self.cut = True
        if rng.random() < 0.5:
            friend = rng.choice(swarm.nodes)
            swarm.network.heal(node.peer, friend.peer)
            swarm.network.heal(friend.peer, node.peer)

    def is_in(self, member: Member, phase: str) -> bool:
        """Whether a member is in a phase: by what it waits for, or by what it is doing."""
        vote = member.ports.store.vote
        accepted = vote.r == member.state.r and vote.accepted_ballot >= 0
        return {"moving": bool(member.moves.running()), "accepted": accepted}.get(phase, member.waiting_for.startswith(phase))

    def shake(self) -> None:
        """Cut the swarm in two at random, and let some lose their power for a moment or longer."""
        swarm, rng = self.swarm, self.rng
        up = [n for n in swarm.nodes if n.up and not n.gone]
        if len(up) > 1 and rng.random() < 0.8:
            swarm.isolate(*rng.sample(up, rng.randint(1, len(up) - 1)))
            self.cut = True
        for node in up:
            if rng.random() < 0.4:
                swarm.kill(node)
                if rng.random() < 0.7:
                    swarm.boot(node)

    # -- what may be done now ---------------------------------------------------------------------------------------

    def calm(self) -> bool:
        """Whether every machine is alive, in the view, at the same entry, and nothing was wrong lately."""
        swarm = self.swarm
        stay = [n for n in swarm.nodes if not n.gone]
        whole = all(n.member is not None and n.member.in_view() and n.member.state.r == swarm.newest().state.r for n in stay)
        started = whole and swarm.newest().state.started(swarm.start_members)
        return started and not self.cut and swarm.now() - self.disturbed_s > CALM_S

    def without(self, node: Node) -> bool:
        """Whether the view can go on when this member is gone for good."""
        members = self.swarm.newest().state.members
        rest = [n.peer for n in self.swarm.nodes if n is not node and not n.gone]
        return len(members) > 1 and is_quorum(members, rest)

    # -- what is done -----------------------------------------------------------------------------------------------

    def strike(self) -> None:
        swarm, rng = self.swarm, self.rng
        up = [n for n in swarm.nodes if n.up and not n.gone]
        down = [n for n in swarm.nodes if not n.up and not n.gone]
        live = [n for n in up if n.member is not None]
        kinds = ["kill", "kill", "leader", "cut", "cut one way", "heal", "isolate", "stall", "slow", "join"]
        kinds += ["boot"] * 4 * len(down) + ["lose", "leave", "power"]
        kind = rng.choice(kinds)
        if kind == "kill" and up:
            swarm.kill(rng.choice(up))
        elif kind == "leader" and (leaders := [n for n in live if n.member.leading]):
            swarm.kill(rng.choice(leaders))
        elif kind == "power":
            for node in up:
                swarm.kill(node)
        elif kind == "boot" and down:
            swarm.boot(rng.choice(down))
        elif kind in ("cut", "cut one way") and len(up) > 1:
            left, right = rng.sample(up, 2)
            swarm.cut(left, right, kind == "cut")
            self.cut = True
        elif kind == "isolate" and len(up) > 1:
            swarm.isolate(*rng.sample(up, rng.randint(1, len(up) - 1)))
            self.cut = True
        elif kind == "heal":
            swarm.heal()
            self.cut = False
        elif kind == "stall" and live:
            node = rng.choice(live)
            swarm.say(f"EVENT stall {node.name}")
            node.trainer.stalled_until_s = swarm.now() + rng.choice((2.0, 10.0, 40.0))
        elif kind == "slow" and up:
            node = rng.choice(up)
            swarm.say(f"EVENT slow link {node.name}")
            node.slow(rng.choice((20.0, 200.0)))
        elif kind == "join" and len([n for n in swarm.nodes if not n.gone]) < 7:
            swarm.boot(swarm.new_node())
        elif kind in ("lose", "leave") and live and self.calm():
            node = rng.choice(live)
            if not self.without(node):
                return
            if kind == "leave":
                swarm.leave(node)
            else:
                swarm.kill(node, lose_files=True)
                swarm.boot(node)
        else:
            return
        self.disturbed_s = swarm.now()

    def repair(self) -> None:
        """Faults stop: links heal and get their rate back, who was killed comes back."""
        self.swarm.heal()
        for node in self.swarm.nodes:
            node.slow(1.0)
            if not node.up and not node.gone:
                self.swarm.boot(node)


def swarm_of(seed: int) -> Swarm:
    """The run of a seed, not begun."""
    rng = random.Random(f"shape/{seed}")
    start_members, snapshot_every, work_s = rng.choice((1, 2)), rng.choice((2, 4, 8)), rng.choice((0.002, 0.002, 0.05, 0.3))
    return Swarm(seed, start_members, SYNCS, snapshot_every, work_s=work_s)


def run_seed(seed: int, swarm: Swarm | None = None) -> Swarm:
    """Play one schedule. Raises what went wrong, the seed and the trace of events with it."""
    swarm = swarm or swarm_of(seed)
    try:
        return play(swarm, Schedule(swarm))
    except BaseException as error:
        events = "\n".join(line for line in swarm.trace if "EVENT" in line)
        error.add_note(f"seed {seed}; replay: python tests/rounds/run_schedules.py --first {seed} --seeds 1 --trace\n{events}")
        raise


def trace_digest(swarm: Swarm) -> str:
    """Names what happened: every note and event with its time, every hash."""
    text = "\n".join([*swarm.trace, *(f"{r} {h}" for (_, r), h in sorted(swarm.hashes.items()))])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def main() -> int:
    """The failing seeds, one line each; exit code 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trace", action="store_true", help="print all notes of every run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed, began = [], time.perf_counter()
    for seed in range(options.first, options.first + options.seeds):
        swarm = swarm_of(seed)
        start = time.perf_counter()
        try:
            run_seed(seed, swarm)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failed.append(seed)
            lines = traceback.format_exception(error)
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:600]}")
            if options.seeds == 1:
                print("".join(lines))
        if options.trace:
            print("\n".join(swarm.trace))
        if (seed - options.first) % 50 == 49:
            print(f"... seed {seed}, {len(failed)} failed, {time.perf_counter() - began:.0f} s", flush=True)
        if options.seeds <= 5:
            seconds = time.perf_counter() - start
            print(f"seed {seed}: {trace_digest(swarm)} {len(swarm.nodes)} nodes, {len(swarm.entries)} entries, {seconds:.2f} s")
    print(f"{options.seeds} seeds, {len(failed)} failed {failed} in {time.perf_counter() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
