"""A frame holds whole blocks, one or several; each is checked against its own digest."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from decentra.errors import PeerFault
from decentra.ledger import chain
from decentra.rounds.download import digest_frames, pull_blocks
from decentra.wire.v1 import state_pb2

BLOCK_BYTES = 100
DATA = bytes(range(256)) + bytes(range(90))
BLOCKS = [DATA[i : i + BLOCK_BYTES] for i in range(0, len(DATA), BLOCK_BYTES)]
DIGESTS = tuple(chain.bytes_block(block) for block in BLOCKS)


class Sender:
    """The one verb of a transport that a pull needs."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = [*digest_frames(DIGESTS), *frames]

    async def pull(self, peer: str, request: bytes, idle_timeout_s: float) -> AsyncIterator[bytes]:
        for frame in self.frames:
            yield frame


def pulled(*frames: bytes, first: int = 0, count: int = len(BLOCKS)) -> list[tuple[int, bytes]]:
    request = state_pb2.PullRequest(first_block=first, num_blocks=count)

    async def pull() -> list[tuple[int, bytes]]:
        stream = pull_blocks(Sender(*frames), "p", request, len(BLOCKS), chain.tree(DIGESTS), False, 1.0, block_bytes=BLOCK_BYTES)  # type: ignore[arg-type]
        return [(number, bytes(data)) async for number, data, _ in stream]

    return asyncio.run(pull())


@pytest.mark.parametrize("cuts", [(100, 200, 300), (200,), (100,), ()])
def test_blocks_come_one_or_several_a_frame(cuts: tuple[int, ...]) -> None:
    edges = (0, *cuts, len(DATA))
    frames = [DATA[start:stop] for start, stop in itertools.pairwise(edges)]
    assert pulled(*frames) == list(enumerate(BLOCKS))
    assert pulled(DATA[100:300], first=1, count=2) == [(1, BLOCKS[1]), (2, BLOCKS[2])]


@pytest.mark.parametrize(
    ("frames", "block"),
    [
        ((DATA[:200], b"x" + DATA[201:]), 2),
        ((DATA[:150], DATA[150:]), 1),
                ((DATA, DATA[:100]), 4),
        ((DATA[:200],), 2),
    ],
)
def test_a_frame_that_is_wrongly_cut_surplus_or_missing_is_a_fault_by_name(frames: tuple[bytes, ...], block: int) -> None:
    with pytest.raises(PeerFault, match=f"block {block}"):
        pulled(*frames)
