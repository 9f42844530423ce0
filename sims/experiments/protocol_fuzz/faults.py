"""What can strike a swarm at a moment: machines, links, disks. Each fault is one function, drawn by its weight."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from decentra.errors import ConfigError
from decentra.rounds.wishes import WISH_FILE
from decentra.settings import next_text
from decentra.transport.weather import LinkWeather
from sims.experiments.protocol_fuzz.machines import Node

if TYPE_CHECKING:
    from sims.experiments.protocol_fuzz.schedule import Schedule


def strike(schedule: Schedule) -> None:
    """One fault, or one repair, drawn from the schedule's seed; nothing where it may not be done now."""
    names = [name for name, (weight, _) in FAULTS.items() for _ in range(weight)]
    names += ["boot"] * 4 * len(schedule.down())
    FAULTS[schedule.rng.choice(names)][1](schedule)


def strike_at(schedule: Schedule, node: Node) -> None:
    """One fault of one machine."""
    swarm, rng = schedule.swarm, schedule.rng
    kind = rng.choice(("kill", "kill", "kill", "restart", "restart", "lose", "isolate", "friend", "one way", "freeze", "leave", "disk"))
    if kind in ("lose", "leave") and not schedule.spare([node]):
        kind = "restart"
    if kind == "kill":
        swarm.kill(node)
    elif kind == "restart":
        swarm.kill(node)
        swarm.boot(node)
    elif kind == "lose":
        swarm.kill(node, lose_files=True)
        swarm.boot(node)
    elif kind == "leave":
        swarm.leave(node, switch_off=True)
    elif kind == "freeze":
        _freeze(schedule, node)
    elif kind == "disk":
        _slow_disk(schedule, node)
    elif kind == "one way":
        for other in swarm.nodes:
            if other is not node:
                swarm.cut(node, other, both=False)
    else:
        swarm.isolate(node)
        if kind == "friend":
            friend = rng.choice(swarm.nodes)
            swarm.network.heal(node.peer, friend.peer)
            swarm.network.heal(friend.peer, node.peer)


def shake(schedule: Schedule) -> None:
    """Cut the swarm in two at random, and let some lose their power for a moment or longer."""
    swarm, rng, up = schedule.swarm, schedule.rng, schedule.up()
    if len(up) > 1 and rng.random() < 0.8:
        swarm.isolate(*rng.sample(up, rng.randint(1, len(up) - 1)))
    for node in up:
        if rng.random() < 0.4:
            swarm.kill(node)
            if rng.random() < 0.7:
                swarm.boot(node)


# -- machines -----------------------------------------------------------------------------------------------------------


def _kill(schedule: Schedule) -> None:
    if up := schedule.up():
        schedule.swarm.kill(schedule.rng.choice(up))


def _kill_leader(schedule: Schedule) -> None:
    if leaders := [node for node, member in schedule.live() if member.leading]:
        schedule.swarm.kill(schedule.rng.choice(leaders))


def _power(schedule: Schedule) -> None:
    for node in schedule.up():
        schedule.swarm.kill(node)


def _boot(schedule: Schedule) -> None:
    if down := schedule.down():
        schedule.swarm.boot(schedule.rng.choice(down))


def _lose(schedule: Schedule) -> None:
    nodes = [node for node, member in schedule.live() if member.in_view()]
    if nodes and schedule.spare([node := schedule.rng.choice(nodes)]):
        schedule.swarm.kill(node, lose_files=True)
        schedule.swarm.boot(node)


def _leave(schedule: Schedule) -> None:
    nodes = [node for node, member in schedule.live() if member.in_view()]
    if nodes and schedule.spare([node := schedule.rng.choice(nodes)]):
        schedule.swarm.leave(node, switch_off=True)


def _join(schedule: Schedule) -> None:
    if len([n for n in schedule.swarm.nodes if not n.gone]) < 16:
        schedule.swarm.boot(schedule.machine())


def _stall(schedule: Schedule) -> None:
    if live := schedule.live():
        node = schedule.rng.choice(live)[0]
        schedule.swarm.say(f"EVENT stall {node.name}")
        assert node.trainer is not None
        node.trainer.stalled_until_s = schedule.swarm.now() + schedule.rng.choice((2.0, 10.0, 40.0))


def _freeze(schedule: Schedule, node: Node | None = None) -> None:
    live = [n for n, _ in schedule.live() if not n.frozen]
    if not live:
        return
    frozen = node or schedule.rng.choice(live)
    schedule.swarm.freeze(frozen)
    schedule.later(schedule.rng.choice((1.0, 6.0, 20.0, 60.0)), lambda: schedule.swarm.thaw(frozen))


def _slow_disk(schedule: Schedule, node: Node | None = None) -> None:
    slow = node or schedule.rng.choice(schedule.swarm.nodes)
    schedule.swarm.say(f"EVENT slow disk {slow.name}")
    usual, slow.work.work_s = slow.work.work_s, schedule.rng.choice((0.5, 2.0, 6.0))
    schedule.later(schedule.rng.choice((5.0, 20.0)), lambda: setattr(slow.work, "work_s", min(usual, 0.3)))


def _wish(schedule: Schedule) -> None:
    """Operators wish other settings: all the same, or some of them, or nobody what another does."""
    swarm, rng = schedule.swarm, schedule.rng
    live = [(node, member) for node, member in schedule.live() if member.in_view()]
    if not live:
        return
    of_all = rng.random() < 0.7
    wanted = _settings(rng, swarm.fragments)
    for node, member in live:
        text = wanted if of_all or rng.random() < 0.5 else _settings(rng, swarm.fragments)
        with contextlib.suppress(ConfigError):  # it holds already
            wished = next_text(member.run.founded, member.state.settings, text)
            swarm.say(f"EVENT {node.name} is asked to wish {wished}")
            node.files.write(WISH_FILE, wished.encode())


def _settings(rng: random.Random, fragments: int) -> dict[str, Any]:
    steps = rng.choice((4, 8, 14))
    return {
        "outer.inner_steps": steps * fragments,
        "outer.overlap_steps": rng.choice((0, 0, 2, 3)),
        "codec.up": rng.choice(("int8", "int4", "bf16")),
        "outer.lr": rng.choice((0.7, 0.4)),
    }


# -- links --------------------------------------------------------------------------------------------------------------


def _cut(schedule: Schedule) -> None:
    if len(up := schedule.up()) > 1:
        schedule.swarm.cut(*schedule.rng.sample(up, 2))


def _cut_one_way(schedule: Schedule) -> None:
    if len(up := schedule.up()) > 1:
        schedule.swarm.cut(*schedule.rng.sample(up, 2), both=False)


def _isolate(schedule: Schedule) -> None:
    if len(up := schedule.up()) > 1:
        schedule.swarm.isolate(*schedule.rng.sample(up, schedule.rng.randint(1, len(up) - 1)))


def _heal(schedule: Schedule) -> None:
    schedule.swarm.heal()


def _slow_link(schedule: Schedule) -> None:
    if up := schedule.up():
        node = schedule.rng.choice(up)
        schedule.swarm.say(f"EVENT slow link {node.name}")
        node.slow(schedule.rng.choice((20.0, 200.0)))


def _bad_weather(kind: str, change: Callable[[Schedule, LinkWeather], None]) -> Callable[[Schedule], None]:
    """Weather of one kind over one link, over all links of a machine, or over all."""

    def fall(schedule: Schedule) -> None:
        swarm, rng = schedule.swarm, schedule.rng
        pairs = [(a, b) for a in swarm.nodes for b in swarm.nodes if a is not b]
        node = rng.choice(swarm.nodes)
        over = rng.choice(("a link", "a machine", "all"))
        if over == "a link" and pairs:
            pairs = [rng.choice(pairs)]
        elif over == "a machine":
            pairs = [pair for pair in pairs if node in pair]
        swarm.say(f"EVENT {kind} over {over}: {' '.join(f'{a.name}>{b.name}' for a, b in pairs[:8])}")
        for a, b in pairs:
            change(schedule, swarm.weather.on(a.peer, b.peer))

    return fall


def _late(schedule: Schedule, link: LinkWeather) -> None:
    link.delay_s = schedule.rng.choice((0.0, 0.05, 0.3, 1.0))
    link.jitter_s = schedule.rng.choice((0.1, 0.5, 2.0))


def _doubled(schedule: Schedule, link: LinkWeather) -> None:
    link.doubled_share = schedule.rng.choice((0.1, 0.5, 1.0))
    link.jitter_s = max(link.jitter_s, 0.2)


def _damaged(schedule: Schedule, link: LinkWeather) -> None:
    link.broken_share, link.spoiled_share = schedule.rng.choice(((0.05, 0.0), (0.3, 0.0), (0.0, 0.1), (0.02, 0.5)))


FAULTS: dict[str, tuple[int, Callable[[Schedule], None]]] = {
    "kill": (2, _kill),
    "kill leader": (1, _kill_leader),
    "power": (1, _power),
    "boot": (1, _boot),
    "lose": (1, _lose),
    "leave": (1, _leave),
    "join": (1, _join),
    "stall": (1, _stall),
    "freeze": (1, _freeze),
    "slow disk": (1, _slow_disk),
    "wish": (1, _wish),
    "cut": (1, _cut),
    "cut one way": (1, _cut_one_way),
    "isolate": (1, _isolate),
    "heal": (2, _heal),
    "slow link": (1, _slow_link),
    "late": (1, _bad_weather("late messages", _late)),
    "doubled": (1, _bad_weather("doubled requests", _doubled)),
    "damaged": (1, _bad_weather("damaged messages", _damaged)),
}
"""Weight and function of each."""
