"""The compiled kernels, where the installation could build them; codecs have the same arithmetic in torch beside it."""

from __future__ import annotations

import ctypes
import importlib.util
from abc import ABC, abstractmethod

import torch

from decentra.codec.base import NotFiniteError, decode_then_add, refuse_not_finite

CODECS = ("fp32", "bf16", "int8", "int4", "fp4", "topk")
"""Codecs with kernels: the C files hold the three functions of each, see kernels.h."""


class Kernels:
    """encode, decode and add of one codec in C, which give the interpreter lock away while they run. See codec.base.

    They may be given only tensors that `fit`.
    """

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self._encode, self._decode, self._add = (library[f"decentra_{name}_{verb}"] for verb in ("encode", "decode", "add"))
        self._encode.argtypes, self._encode.restype = (pointer, pointer, count), count
        self._decode.argtypes, self._decode.restype = (pointer, pointer, count), None
        self._add.argtypes, self._add.restype = (pointer, ctypes.c_float, pointer, count), None

    def encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """chunks: (n, 4096) fp32; out: (n, chunk_bytes) uint8. Raises NotFiniteError."""
        if (bad := self._encode(chunks.data_ptr(), out.data_ptr(), len(chunks))) >= 0:
            raise NotFiniteError(bad)

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """packed: (n, chunk_bytes) uint8; out: (n, 4096) fp32."""
        self._decode(packed.data_ptr(), out.data_ptr(), len(packed))

    def add(self, packed: torch.Tensor, factor: float, total: torch.Tensor) -> None:
        """packed: (n, chunk_bytes) uint8; factor: fp32; total: (n, 4096) fp32, added to."""
        self._add(packed.data_ptr(), factor, total.data_ptr(), len(packed))


def _load() -> dict[str, Kernels]:
    found = importlib.util.find_spec("decentra.codec._kernels")
    if found is None or found.origin is None:
        return {}
    try:
        library = ctypes.CDLL(found.origin)
        return {name: Kernels(library, name) for name in CODECS}
    except (OSError, AttributeError):  # not for this machine, or built from older sources
        return {}


_LOADED = _load()


def available() -> bool:
    """Whether kernels were built here."""
    return bool(_LOADED)


def of(name: str) -> Kernels | None:
    """The kernels of a codec, None where they were not built."""
    return _LOADED.get(name)


def fit(*tensors: torch.Tensor) -> bool:
    """Whether kernels may take these: whole, contiguous, in this machine's memory."""
    return all(t.is_contiguous() and t.device.type == "cpu" for t in tensors)


class Compiled(ABC):
    """A codec that gives its kernels what they `fit`, and does the rest in torch, with the same bits. See codec.base.

    Subclasses give the two constants and the verbs in torch. compiled: False for torch alone.
    """

    name: str
    chunk_bytes: int

    def __init__(self, compiled: bool = True) -> None:
        self._kernels = of(self.name) if compiled else None

    def encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """See codec.base."""
        if self._kernels and fit(chunks, out):
            self._kernels.encode(chunks, out)
            return
        refuse_not_finite(chunks)
        self._encode(chunks, out)

    def decode(self, packed: torch.Tensor, out: torch.Tensor) -> None:
        """See codec.base."""
        if self._kernels and fit(packed, out):
            self._kernels.decode(packed, out)
            return
        self._decode(packed, out)

    def add(self, packed: torch.Tensor, factor: float, total: torch.Tensor, scratch: torch.Tensor) -> None:
        """See codec.base."""
        if self._kernels and fit(packed, total):
            self._kernels.add(packed, factor, total)
            return
        self._add(packed, factor, total, scratch)

    @abstractmethod
    def _encode(self, chunks: torch.Tensor, out: torch.Tensor) -> None:
        """chunks: finite."""

    @abstractmethod
    def _decode(self, packed: torch.Tensor, out: torch.Tensor) -> None: ...

    def _add(self, packed: torch.Tensor, factor: float, total: torch.Tensor, scratch: torch.Tensor) -> None:
        decode_then_add(self, packed, factor, total, scratch)
