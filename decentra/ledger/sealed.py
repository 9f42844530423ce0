"""Small JSON files with a checksum: a byte that the disk changed is noticed, wherever it stands."""

from __future__ import annotations

import json
from typing import Any

from decentra.ledger import chain

_CHECK = "check"


def seal(data: dict[str, Any]) -> bytes:
    """The bytes of a file that holds `data`, whose values JSON keeps as they are."""
    return json.dumps({**data, _CHECK: _check(data)}).encode()


def unseal(raw: bytes) -> dict[str, Any]:
    """What was sealed. Raises ValueError where it is not whole."""
    data = json.loads(raw)
    if not isinstance(data, dict) or data.pop(_CHECK, None) != _check(data) or seal(data) != raw:
        raise ValueError("the checksum does not hold")
    return data


def _check(data: dict[str, Any]) -> str:
    return chain.digest("decentra/sealed", json.dumps(data, sort_keys=True).encode()).hex()[:16]
