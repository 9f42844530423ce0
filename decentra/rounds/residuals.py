"""Error-feedback residuals on disk, each under the root that it follows.

From offer to decision two are kept of a fragment: the one before, under the root of this member's last counted
contribution of it, and the one after, under the root offered. S names the last counted root, so which one holds needs no
bookkeeping: not after a crash, a fork or a re-sync either. One under any other root is dropped.
"""

from __future__ import annotations

import numpy as np
import torch

from decentra.ledger.chain import bytes_block
from decentra.ledger.files import Files

FOLDER = "residuals"
_CHECK_BYTES = 32


class Residuals:
    """The residuals of one member. Blocks: to be called off the event loop."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def before(self, fragment: int, counted_root: str, num_elements: int) -> torch.Tensor | None:
        """(num_elements,) fp32 that follows the last counted root (hex, "" before the first); all others are dropped.

        None where there is none, or where the disk changed it: its mass is then lost, never sent wrong.
        """
        held = f"{FOLDER}/{fragment}/{counted_root}" if counted_root else ""
        for name in self._files.names(f"{FOLDER}/{fragment}"):
            if name != held:
                self._files.remove(name)
        raw = self._files.read(held) if held else None
        if raw is None or len(raw) != _CHECK_BYTES + 4 * num_elements or bytes_block(raw[_CHECK_BYTES:]) != raw[:_CHECK_BYTES]:
            return None
        return torch.from_numpy(np.frombuffer(bytearray(raw[_CHECK_BYTES:]), dtype="<f4"))

    def keep(self, fragment: int, root: str, residual: torch.Tensor) -> None:
        """Write down what follows `root` (hex), durably: before the first byte of that contribution leaves."""
        data = residual.numpy().astype("<f4", copy=False).tobytes()
        self._files.write(f"{FOLDER}/{fragment}/{root}", bytes_block(data) + data)
