"""The compiled kernels, where the installation could build them; codecs have the same arithmetic in torch beside it."""

from __future__ import annotations

import ctypes
import importlib.util

import torch


def _load() -> ctypes.CDLL | None:
    found = importlib.util.find_spec("decentra.codec._kernels")
    if found is None or found.origin is None:
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    try:
        library = ctypes.CDLL(found.origin)  # gives the interpreter lock away while a kernel runs
        library.decentra_int8_encode.argtypes, library.decentra_int8_encode.restype = (pointer, pointer, count), count
        library.decentra_int8_decode.argtypes, library.decentra_int8_decode.restype = (pointer, pointer, count), None
        library.decentra_int8_add.argtypes, library.decentra_int8_add.restype = (pointer, ctypes.c_float, pointer, count), None
    except (OSError, AttributeError):  # not for this machine, or built from older sources
        return None
    return library


_LIBRARY = _load()


def available() -> bool:
    """Whether kernels were built here."""
    return _LIBRARY is not None


def fit(*tensors: torch.Tensor) -> bool:
    """Whether kernels may take these: whole, contiguous, in this machine's memory."""
    return all(t.is_contiguous() and t.device.type == "cpu" for t in tensors)


def int8_encode(chunks: torch.Tensor, out: torch.Tensor) -> int:
    """chunks: (n, 4096) fp32; out: (n, 4160) uint8. Returns -1, or the first chunk that is not finite. Both must `fit`."""
    assert _LIBRARY is not None
    return int(_LIBRARY.decentra_int8_encode(chunks.data_ptr(), out.data_ptr(), len(chunks)))


def int8_decode(packed: torch.Tensor, out: torch.Tensor) -> None:
    """packed: (n, 4160) uint8; out: (n, 4096) fp32. Both must `fit`."""
    assert _LIBRARY is not None
    _LIBRARY.decentra_int8_decode(packed.data_ptr(), out.data_ptr(), len(packed))


def int8_add(packed: torch.Tensor, factor: float, total: torch.Tensor) -> None:
    """packed: (n, 4160) uint8; factor: fp32; total: (n, 4096) fp32, added to. Both must `fit`."""
    assert _LIBRARY is not None
    _LIBRARY.decentra_int8_add(packed.data_ptr(), factor, total.data_ptr(), len(packed))
