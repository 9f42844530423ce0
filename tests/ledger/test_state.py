"""Headers of S: read back as they were written, or refused; they come from donors and from disks."""

from __future__ import annotations

import json

import pytest
import torch

from decentra.ledger.apply import initial_state
from decentra.ledger.state import Member, OuterTensors, from_header
from decentra.outer.fragments import Fragment
from decentra.types import CHUNK_ELEMENTS

PARTS = (Fragment(0, 0, 2),)


def tensors_of() -> OuterTensors:
    return OuterTensors(torch.ones(2 * CHUNK_ELEMENTS), torch.zeros(2 * CHUNK_ELEMENTS))


@pytest.mark.parametrize(
    "change",
    [
        {"r": "8"}, {"r": -(2**64)}, {"r": True}, {"members": 3}, {"members": [{}]}, {"leases": []}, {"leases": {"a": [["1", "2"]]}},
        {"leases": {"a": [[1, 2, 3]]}}, {"pool": [[1]]}, {"parts": None}, {"roots": [["ab", "cd"]]}, {"roots": [[1, 2]]}, {"more": 1},
    ],
)  # fmt: skip
def test_a_header_of_other_types_is_refused_with_one_kind_of_error(change: dict[str, object]) -> None:
    good = initial_state(Member("alice", 1, True, 4), tensors_of(), PARTS, 100).header()
    assert from_header(good).header() == good
    with pytest.raises(ValueError):
        from_header(json.dumps({**json.loads(good), **change}, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"1" * 5000])
def test_what_is_no_header_at_all_is_refused_with_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        from_header(data)
