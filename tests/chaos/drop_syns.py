"""Drop what asks an interface for a new TCP connection, until standard input closes: a NAT as others see it.

An XDP program, loaded by the bare system call: the machine that runs the tests may have neither iptables nor nft.
Usage, in the namespace of the interface: python drop_syns.py INTERFACE
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys

BPF_SYSCALL, PROG_LOAD, LINK_CREATE = 321, 5, 28  # x86-64
PROG_TYPE_XDP, ATTACH_XDP, SKB_MODE = 6, 37, 2
SYN, SYN_OR_ACK = 0x02, 0x12


def _step(code: int, to: int, source: int, offset: int, value: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def program() -> bytes:
    """Drop an IPv4 packet without options whose TCP flags are SYN without ACK; pass all else."""
    passing = 14  # index of the step that passes
    word, half, byte = 0x61, 0x69, 0x71  # load *(source + offset)

    def unless(at: int, value: int) -> bytes:
        return _step(0x55, 5, 0, passing - at - 1, value)  # if r5 != value, pass

    return b"".join(
        [
            _step(word, 2, 1, 0, 0),  # r2 = start of the packet
            _step(word, 3, 1, 4, 0),  # r3 = its end
            _step(0xBF, 4, 2, 0, 0),
            _step(0x07, 4, 0, 0, 48),  # Ethernet 14, IP 20, TCP up to its flags 14
            _step(0x2D, 4, 3, passing - 5, 0),  # shorter: pass
            _step(half, 5, 2, 12, 0),
            unless(6, 0x0008),  # IPv4, as a little-endian machine reads it
            _step(byte, 5, 2, 23, 0),
            unless(8, 6),  # TCP
            _step(byte, 5, 2, 47, 0),
            _step(0x57, 5, 0, 0, SYN_OR_ACK),
            unless(11, SYN),
            _step(0xB7, 0, 0, 0, 1),
            _step(0x95, 0, 0, 0, 0),  # XDP_DROP
            _step(0xB7, 0, 0, 0, 2),
            _step(0x95, 0, 0, 0, 0),  # XDP_PASS
        ]
    )


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(attributes, 128)
    got = libc.syscall(BPF_SYSCALL, command, room, len(room))
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(got)


def main(interface: str) -> None:
    """Attach, say so, wait."""
    code, license_name = ctypes.create_string_buffer(program()), ctypes.create_string_buffer(b"GPL")
    steps = len(program()) // 8
    loaded = _bpf(PROG_LOAD, struct.pack("<IIQQ", PROG_TYPE_XDP, steps, ctypes.addressof(code), ctypes.addressof(license_name)))
    _bpf(LINK_CREATE, struct.pack("<IIII", loaded, socket.if_nametoindex(interface), ATTACH_XDP, SKB_MODE))
    print("dropping", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
