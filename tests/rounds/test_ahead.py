"""Averaging ahead of the close: the same bits as of the whole, whatever came when and whoever stopped waiting for it."""

import asyncio
import time
from types import SimpleNamespace

import pytest
import torch

from decentra import build
from decentra.codec.base import NotFiniteError, encode
from decentra.errors import RefusedError
from decentra.ledger.state import Part
from decentra.outer.average import shares
from decentra.rounds import ahead
from decentra.rounds import owner as owners
from decentra.rounds.parts import HeldContribution, PartStore
from decentra.rounds.ports import Changed
from decentra.rounds.reduction import reduce
from decentra.types import CHUNK_ELEMENTS

CODECS = build.codecs()
CHUNKS, PART, ME = 200, Part(0, 4, "m0"), "m0"


class Slow:
    """A codec that takes its time to encode."""

    def __init__(self, codec):
        self.codec = codec

    def __getattr__(self, name):
        return getattr(self.codec, name)

    def encode(self, chunks, out):
        time.sleep(0.05)
        self.codec.encode(chunks, out)


def shares_of(offers):
    return shares({o.sender: o.weight_tokens for o in offers})


class Owner:
    """What averaging ahead asks of a member, and the contributions of `count` senders."""

    def __init__(self, count=3, down="int8", spoilt=None):
        codecs = {"int8": CODECS["int8"], "down": Slow(CODECS[down])}
        machine = SimpleNamespace(gather=False, shares=shares_of, codecs=codecs, up="int8", down="down")
        self.run, self.parts, self.peer, self.takes_over = SimpleNamespace(machine=machine), PartStore(), ME, ()
        self.ports = SimpleNamespace(run_blocking=asyncio.to_thread, note=lambda line: None)
        self.averaging, self.arrived = asyncio.Lock(), Changed()
        senders = [f"m{n}" for n in range(count)]
        self.offers = [SimpleNamespace(sender=s, root=s.encode(), num_chunks=CHUNKS, weight_tokens=100 + n) for n, s in enumerate(senders)]
        self.book = SimpleNamespace(offers={offer.sender: offer for offer in self.offers})
        self.state = SimpleNamespace(sync=4, parts=(PART,), expected=lambda: senders)
        self.blocks = {}
        for number, sender in enumerate(senders):
            values = torch.randn(CHUNKS * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(number))
            packed = encode(CODECS["int8"], values)
            if sender == spoilt:
                packed[0] = 0xFF
            self.blocks[sender] = [each.numpy().data.cast("B") for each in packed.split(64)]
            self.parts.held[sender.encode()] = HeldContribution(None, ())

    def bring(self, *numbers):
        for sender, blocks in self.blocks.items():
            self.parts.held[sender.encode()].blocks.update({number: blocks[number] for number in numbers})
        self.arrived.notify()

    async def averaged(self, *left_out):
        chosen = [offer for offer in self.offers if offer.sender not in left_out]
        return await ahead.averaged_part(self, PART, chosen, self.parts.blocks({o.root: o.sender for o in chosen}, PART))

    def wanted(self, *left_out):
        counted = shares_of([o for o in self.offers if o.sender not in left_out])
        return reduce({s: self.blocks[s] for s in counted}, counted, CODECS["int8"], self.run.machine.codecs["down"].codec)


async def until(holds):
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


def test_what_was_averaged_as_it_came_is_the_average_of_the_whole():
    async def main():
        owner = Owner()
        working = asyncio.ensure_future(ahead.average_ahead(owner))
        for number in range(3):
            owner.bring(number)
            await until(lambda number=number: owner.parts.begun and owner.parts.begun[(0, 4)].reduction.num_blocks == number + 1)
        owner.bring(3)
        assert torch.equal(await owner.averaged(), owner.wanted())
        assert torch.equal(await owner.averaged("m0"), owner.wanted("m0")), "a close that counts others"
        assert torch.equal(await owner.averaged(), owner.wanted())
        working.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("asks", ["average_ahead", "averaged_part"])
def test_an_average_whose_asker_goes_away_in_the_middle_is_made_again(asks):
    async def main():
        owner = Owner()
        owner.bring(0, 1, 2, 3)
        ahead._begun(owner, PART, owner.offers)
        asking = asyncio.ensure_future(ahead.average_ahead(owner) if asks == "average_ahead" else owner.averaged())
        await asyncio.sleep(0.07)
        asking.cancel()
        await asyncio.wait({asking})
        assert torch.equal(await owner.averaged(), owner.wanted())

    asyncio.run(main())


def test_what_cannot_be_averaged_is_found_by_the_close_and_named_there():
    async def main():
        owner = Owner(down="fp32", spoilt="m2")
        owner.bring(0, 1, 2, 3)
        working = asyncio.ensure_future(ahead.average_ahead(owner))
        await until(lambda: owner.parts.begun and owner.parts.begun[(0, 4)].spoilt)
        with pytest.raises(NotFiniteError):
            await owner.averaged()
        assert torch.equal(await owner.averaged("m2"), owner.wanted("m2"))
        assert not working.done()
        working.cancel()

    asyncio.run(main())


def test_a_sync_that_is_decided_while_an_owner_averages_what_cannot_be_is_no_fault_of_its_own():
    async def main():
        owner = Owner(down="fp32", spoilt="m2")
        owner.bring(0, 1, 2, 3)
        reducing = asyncio.ensure_future(owners._reduce_part(owner, 9, PART, owner.offers))
        await asyncio.sleep(0.02)
        owner.parts.clear()
        with pytest.raises(RefusedError, match="m2 holds NaN"):
            await reducing

    asyncio.run(main())
