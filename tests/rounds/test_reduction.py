"""What an owner makes of a close: the average in the order of senders, encoded once."""

from __future__ import annotations

import torch

from decentra import build
from decentra.codec.base import encode
from decentra.outer.average import shares
from decentra.rounds.reduction import reduce
from decentra.types import CHUNK_ELEMENTS


def blocks(packed: dict[str, torch.Tensor], rows: int = 2) -> dict[str, list[memoryview]]:
    """Parts as an owner holds them, cut every `rows` chunks."""
    return {sender: [each.numpy().data.cast("B") for each in whole.split(rows)] for sender, whole in packed.items()}


def test_an_average_is_of_what_was_decoded_in_the_order_of_senders() -> None:
    codecs = build.codecs()
    terms = {f"m{n}": torch.randn(2 * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(n)) for n in range(3)}
    weights = {"m0": 100, "m1": 300, "m2": 7}
    for up in codecs.values():
        packed = {sender: encode(up, term) for sender, term in terms.items()}
        found = reduce(blocks(dict(reversed(packed.items()))), shares(weights), up, codecs["fp32"])
        wanted = torch.zeros(2, CHUNK_ELEMENTS)
        for index, sender in enumerate(sorted(packed)):
            term = torch.empty(2, CHUNK_ELEMENTS)
            up.decode(packed[sender], term)
            term = term * torch.tensor(weights[sender] / 407, dtype=torch.float32)
            wanted = term if index == 0 else wanted + term
        assert found.numpy().tobytes() == wanted.numpy().tobytes()


def test_the_average_of_one_is_what_it_sent() -> None:
    codec = build.codecs()["fp32"]
    packed = encode(codec, torch.randn(CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(reduce(blocks({"a": packed}), shares({"a": 12345}), codec, codec), packed)


def test_cutting_a_contribution_differently_changes_no_byte_of_the_average() -> None:
    codecs = build.codecs()
    int8 = codecs["int8"]
    packed = {f"m{n}": encode(int8, torch.randn(5 * CHUNK_ELEMENTS, generator=torch.Generator().manual_seed(n))) for n in range(3)}
    counted = shares({"m0": 1, "m1": 2, "m2": 3})
    whole = reduce(blocks(packed, 5), counted, int8, int8)
    for cut in range(1, 5):
        assert torch.equal(reduce(blocks(packed, cut), counted, int8, int8), whole)
        parts = [reduce(blocks({s: p[rows] for s, p in packed.items()}), counted, int8, int8) for rows in (slice(0, cut), slice(cut, 5))]
        assert torch.equal(torch.cat(parts), whole)
