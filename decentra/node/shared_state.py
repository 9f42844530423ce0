"""Where daemon and trainer meet: anchor and contribution slot in one anonymous file, passed by descriptor, never by name.

SIGKILL therefore leaves nothing behind. Linux has memfd; elsewhere an unlinked temporary file serves.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import tempfile
from pathlib import Path

import torch

ELEMENT_BYTES = 4


class SharedState:
    """`anchor` (daemon writes, trainer reads) and `local` (trainer writes, daemon reads): (num_elements,) fp32 each."""

    def __init__(self, descriptor: int, num_elements: int) -> None:
        """Takes the descriptor over; it is closed with this object."""
        self.descriptor, self.num_elements = descriptor, num_elements
        self._map = mmap.mmap(descriptor, 2 * num_elements * ELEMENT_BYTES)
        both = torch.frombuffer(self._map, dtype=torch.float32)
        self.anchor, self.local = both[:num_elements], both[num_elements:]

    @classmethod
    def create(cls, num_elements: int) -> SharedState:
        """New, zeros."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("decentra-outer-state")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, 2 * num_elements * ELEMENT_BYTES)
        return cls(descriptor, num_elements)


async def offer_descriptor(listening: socket.socket, descriptor: int) -> None:
    """Hand the descriptor to whoever connects next to this non-blocking socket; cancel to stop waiting."""
    connection, _ = await asyncio.get_running_loop().sock_accept(listening)
    with connection:
        socket.send_fds(connection, [b"d"], [descriptor])


def take_descriptor(path: Path) -> int:
    """The descriptor that the daemon hands out at this Unix socket. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not descriptors:
        raise OSError(f"the daemon behind {path} gave no shared memory")
    return descriptors[0]
