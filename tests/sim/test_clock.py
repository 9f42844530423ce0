"""The virtual loop: time leaps when all wait, order is kept, and a wait that nothing can end is an error."""

from __future__ import annotations

import asyncio

import pytest

from decentra.sim import clock
from decentra.sim.clock import Deadlock


def test_a_month_of_waiting_is_over_at_once_and_the_clock_says_so() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert loop.time() == 0.0
        await asyncio.sleep(30 * 86400.0)
        return loop.time()

    assert clock.run(main()) == 30 * 86400.0


def test_sleepers_wake_in_the_order_of_their_timers() -> None:
    woken: list[tuple[float, str]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((asyncio.get_running_loop().time(), name))

    async def main() -> None:
        await asyncio.gather(sleeper("c", 3.0), sleeper("a", 1.0), sleeper("b", 2.5))

    clock.run(main())
    assert woken == [(1.0, "a"), (2.5, "b"), (3.0, "c")]


def test_work_takes_no_time_however_many_turns_it_needs() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert clock.run(main()) == 0.0


def test_timeouts_are_of_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                await asyncio.sleep(2000)
        return asyncio.get_running_loop().time()

    assert clock.run(main()) == 1000.0


def test_a_wait_that_nothing_can_end_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="all tasks wait and no timer is set"):
        clock.run(main())


def test_two_tasks_that_wait_for_each_other_are_a_deadlock() -> None:
    async def main() -> None:
        one, two = asyncio.Event(), asyncio.Event()

        async def waits(mine: asyncio.Event, other: asyncio.Event) -> None:
            await other.wait()
            mine.set()

        await asyncio.gather(waits(one, two), waits(two, one))

    with pytest.raises(Deadlock):
        clock.run(main())


def test_two_runs_begin_at_zero_each() -> None:
    async def main() -> float:
        await asyncio.sleep(7)
        return asyncio.get_running_loop().time()

    assert clock.run(main()) == clock.run(main()) == 7.0


def test_a_frozen_process_does_nothing_until_it_thaws_and_then_all_it_missed() -> None:
    done: list[tuple[str, float]] = []

    async def works(process: str) -> None:
        clock.PROCESS.set(process)
        for _ in range(3):
            await asyncio.sleep(1.0)
            done.append((process, asyncio.get_running_loop().time()))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        tasks = [asyncio.create_task(works("one")), asyncio.create_task(works("two"))]
        await asyncio.sleep(1.5)
        loop.freeze("one")
        await asyncio.sleep(10.0)
        loop.thaw("one")
        await asyncio.gather(*tasks)

    clock.run(main())
    assert [at for name, at in done if name == "two"] == [1.0, 2.0, 3.0]
    assert [at for name, at in done if name == "one"] == [1.0, 11.5, 12.5]


def test_timers_of_one_moment_run_in_the_order_in_which_they_were_set() -> None:
    order: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(50):
            loop.call_at(1.0, order.append, number)
        await asyncio.sleep(2.0)

    clock.run(main())
    assert order == list(range(50))


def test_cancelled_timers_are_swept_and_never_run() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        for _ in range(5000):
            loop.call_later(1000.0, pytest.fail).cancel()
        assert len(loop._timers) < 1000
        await asyncio.sleep(2000.0)
        return len(loop._timers)

    assert clock.run(main()) == 0
