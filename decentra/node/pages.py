"""The C library's memory, told to keep what was freed: a round frees and takes the same buffers again and again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_KEEP_BYTES = (1 << 31) - 1
_PAD_BYTES = 64 << 20


def keep_pages() -> None:
    """To be called before threads are started; does nothing where the C library is not glibc.

    By default glibc gives large buffers back to the kernel at once, and taking fresh pages costs more than coding or
    sending what is written to them. One arena: else each thread keeps freed buffers that no other can take.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEEP_BYTES), (_TOP_PAD, _PAD_BYTES)):
        libc.mallopt(option, value)
