"""From config to objects: the only file that names concrete classes."""

from __future__ import annotations

from decentra.codec.base import Codec
from decentra.codec.cast import Fp32
from decentra.codec.int8 import Int8
from decentra.config import RunConfig
from decentra.ledger.apply import Machine
from decentra.outer.fragments import fragments
from decentra.outer.layout import Layout
from decentra.outer.nesterov import Nesterov


def codecs() -> dict[str, Codec]:
    """Every codec by the name that travels."""
    return {codec.name: codec for codec in (Fp32(), Int8())}


def machine(config: RunConfig, layout: Layout) -> Machine:
    """How this run applies entries."""
    outer = config.outer
    return Machine(
        fragments=fragments(layout.num_chunks),
        codecs=codecs(),
        outer=Nesterov(outer.lr, outer.momentum, outer.nesterov),
        up=config.codec.up,
        down=config.codec.down,
        start_members=config.start_members,
    )
