"""Two processes and one piece of memory, passed by descriptor."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from decentra.node.shared_state import SharedState, offer_descriptor, take_descriptor

NUM_ELEMENTS = 8192

CHILD = """
import sys
from pathlib import Path
import torch
from decentra.node.shared_state import SharedState, take_descriptor
shared = SharedState(take_descriptor(Path(sys.argv[1])), int(sys.argv[2]))
assert torch.equal(shared.anchor, torch.arange(float(sys.argv[2])))
shared.local.copy_(shared.anchor * 2)
print("written", flush=True)
sys.stdin.readline()
assert shared.anchor[0] == 7
"""


@pytest.fixture()
def listening(tmp_path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    found.bind(str(tmp_path / "m.sock"))
    found.listen()
    found.setblocking(False)
    return found


def test_two_processes_see_each_others_writes(tmp_path: Path, listening: socket.socket) -> None:
    shared = SharedState.create(NUM_ELEMENTS)
    shared.anchor.copy_(torch.arange(float(NUM_ELEMENTS)))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "m.sock"), str(NUM_ELEMENTS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        asyncio.run(asyncio.wait_for(offer_descriptor(listening, shared.descriptor), 60))
        assert child.stdout.readline() == "written\n"
        assert torch.equal(shared.local, 2 * torch.arange(float(NUM_ELEMENTS)))
        shared.anchor[0] = 7
        child.stdin.write("\n")
        child.stdin.close()
        assert child.wait(30) == 0
    listening.close()


def test_new_memory_is_zero_and_has_no_name() -> None:
    shared = SharedState.create(NUM_ELEMENTS)
    assert shared.anchor.numel() == shared.local.numel() == NUM_ELEMENTS
    assert not shared.anchor.any() and not shared.local.any()
    assert os.fstat(shared.descriptor).st_nlink == 0 and os.fstat(shared.descriptor).st_size == 8 * NUM_ELEMENTS


def test_waiting_for_a_taker_can_be_cancelled(listening: socket.socket) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(offer_descriptor(listening, 0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        assert task.cancelled()

    asyncio.run(main())
    listening.close()


def test_a_daemon_that_hands_out_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        take_descriptor(tmp_path / "nobody.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "m.sock"))
        listening.listen()
        child = subprocess.Popen([sys.executable, "-c", _TAKE, str(tmp_path / "m.sock")], stderr=subprocess.PIPE, text=True)
        listening.accept()[0].close()
        assert "gave no shared memory" in child.communicate(timeout=60)[1]


_TAKE = "import sys; from pathlib import Path; from decentra.node.shared_state import take_descriptor; take_descriptor(Path(sys.argv[1]))"
