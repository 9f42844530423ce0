"""A whole swarm on the virtual clock with a trainer that costs nothing: what fault schedules and named tests play on.

Blocks are one chunk here (see `small_blocks`), so that a layout of few elements is cut into several parts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from decentra.ledger.entry import Entry
from decentra.rounds import records
from decentra.rounds.member import Member
from decentra.sim import clock
from decentra.types import PeerId
from sims.experiments.protocol_fuzz.invariants import Watch
from sims.experiments.protocol_fuzz.machines import Node, small_blocks
from sims.experiments.protocol_fuzz.processes import Processes
from sims.experiments.protocol_fuzz.watched import watched_composing


@dataclass
class Swarm(Processes):
    """Processes that can be asked and waited for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._trap: tuple[str, asyncio.Future[Node]] | None = None

    # -- questions --------------------------------------------------------------------------------------------------

    @property
    def watch(self) -> Watch:
        """The watch of the lineage that the newest state is in."""
        return self.watches.of(max(self.members(), key=lambda m: m.state.r).state.lineage if self.members() else "")

    def live(self) -> list[Node]:
        return [n for n in self.nodes if n.member is not None]

    def members(self) -> list[Member]:
        return [n.member for n in self.live() if n.member is not None]

    def member(self, number: int) -> Member:
        member = self.nodes[number].member
        assert member is not None
        return member

    def by_peer(self, peer: PeerId) -> Node:
        return next(n for n in self.nodes if n.peer == peer)

    def leader(self) -> Node | None:
        """The node that leads the due entry of the newest state."""
        r = self.newest().state.r
        return next((n for n in self.live() if n.member is not None and n.member.leading and n.member.state.r == r), None)

    async def when_leader(self, phase: str, limit_s: float = 60.0) -> Node:
        """The leader, at the moment it waits for what starts with `phase`."""

        def there() -> bool:
            leader = self.leader()
            return leader is not None and leader.member is not None and leader.member.waiting_for.startswith(phase)

        await self.until(there, limit_s, f"a leader in {phase}", 0.002)
        leader = self.leader()
        assert leader is not None
        return leader

    def entry(self, r: int) -> Entry:
        return records.parse_entry(self.watch.entries[r])

    def counted(self, sync: int) -> list[str]:
        """Names of those whose contribution a committed sync counted."""
        return sorted(self.by_peer(c.sender).name for c in self.entry_of(sync).counted)

    def entry_of(self, sync: int) -> Entry:
        """The entry that committed a sync."""
        return next(e for e in map(records.parse_entry, self.watch.entries.values()) if e.sync == sync)

    def newest(self) -> Member:
        return max(self.members(), key=lambda m: m.state.r)

    def standing(self) -> str:
        lines = []
        for node in self.nodes:
            m = node.member
            lines.append(
                f"{node.name}: {'-' if m is None else (m.state.r, m.state.sync, m.attempt, 'leads' if m.leading else '', m.waiting_for)}"
                f"{' gone' if node.gone else ''}{' frozen' if node.frozen else ''}"
            )
        return "; ".join(lines)

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], limit_s: float = 60.0, what: str = "", step_s: float = 0.05) -> None:
        """Wait until condition() holds, looking every step_s; fails after limit_s virtual seconds."""
        end = self.now() + limit_s
        while not condition():
            if self.now() > end:
                raise AssertionError(f"not within {limit_s} s: {what or condition}; {self.standing()}")
            await asyncio.sleep(step_s)
            self.check()

    async def sleep(self, seconds: float) -> None:
        """Let the swarm live; raises at the moment an invariant breaks."""
        await self.unless_failed(asyncio.sleep(seconds))

    async def trapped(self, what: str, limit_s: float) -> Node | None:
        """The next node that begins to wait for what starts so, or does what is named so; None if none does in time."""
        future: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._trap = (what, future)

        async def caught() -> Node | None:
            await asyncio.wait([future], timeout=limit_s)
            return future.result() if future.done() else None

        try:
            return await self.unless_failed(caught())
        finally:
            self._trap = None

    def spring(self, what: str, node: Node) -> None:
        """A node does something, or waits for something."""
        if self._trap is not None and what.startswith(self._trap[0]) and not self._trap[1].done() and not node.gone:
            self._trap[1].set_result(node)

    async def unless_failed(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`; raises at the moment an invariant breaks."""
        self.check()
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            self.check()
            return task.result()
        finally:
            task.cancel()

    async def finish(self, limit_s: float) -> None:
        """All live processes end within limit_s; all agree; nothing is left running."""
        waited = [task for node in self.nodes for task in (node.booting, node.task) if task is not None]
        pending = await self.unless_failed(self._wait_for(waited, limit_s))
        if pending:
            raise AssertionError(f"the run does not end within {limit_s} s: {self.standing()}")
        self.check()
        self.watch.check_end()
        await self.close()

    async def _wait_for(self, tasks: list[asyncio.Task[None]], limit_s: float) -> int:
        return len((await asyncio.wait(tasks, timeout=limit_s))[1])

    async def close(self) -> None:
        """End what serves, and see that nothing is left running."""
        for node in self.nodes:
            if node.transport is not None:
                await node.transport.close()
            if node.task is not None and not node.task.done():
                node.task.cancel()
                await asyncio.wait([node.task])
        await asyncio.sleep(1.0)
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and not t.done()]
        assert not left, f"tasks are left: {left}"
        self.check()


class _Errors(logging.Handler):
    """What decentra logs as an error is one: here nothing may fail internally."""

    def __init__(self, swarm: Swarm) -> None:
        super().__init__(logging.ERROR)
        self._swarm = swarm

    def emit(self, record: logging.LogRecord) -> None:
        self._swarm.violate(f"logged: {record.getMessage()}", record.exc_info[1] if record.exc_info else None)


def play(swarm: Swarm, story: Callable[[Swarm], Coroutine[Any, Any, None]]) -> Swarm:
    """Run `story(swarm)` on the virtual clock; any exception that a task swallowed fails it."""

    async def main() -> None:
        def odd(_: Any, context: dict[str, Any]) -> None:
            swarm.violate(f"{context.get('message')}: {context.get('exception')!r} {context.get('task') or context.get('future')}")

        asyncio.get_running_loop().set_exception_handler(odd)
        await story(swarm)
        swarm.check()

    handler = _Errors(swarm)
    logging.getLogger("decentra").addHandler(handler)
    try:
        with small_blocks(), watched_composing():
            clock.run(main())
    finally:
        logging.getLogger("decentra").removeHandler(handler)
    return swarm
