"""A second decoder, in numpy and as plain as can be, written from section 3 of docs/wire-format.md alone."""

import struct

import numpy as np
from numpy_decoder_topk import chunk_of as _topk

CHUNK = 4096
LEVELS = [0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
CHUNK_BYTES = {"fp32": 16384, "bf16": 8192, "int8": 4160, "int4": 2176, "fp4": 2176, "topk": 88}


def decode(codec: str, payload: bytes) -> np.ndarray:
    """(chunks, 4096) fp32."""
    size = CHUNK_BYTES[codec]
    assert len(payload) % size == 0
    chunks = [payload[at : at + size] for at in range(0, len(payload), size)]
    return np.array([_DECODERS[codec](chunk) for chunk in chunks], np.float32).reshape(-1, CHUNK)


def _fp32(chunk: bytes) -> np.ndarray:
    return np.frombuffer(chunk, "<f4")


def _bf16(chunk: bytes) -> np.ndarray:
    return np.array([u << 16 for u in struct.unpack("<4096H", chunk)], np.uint32).view(np.float32)


def _int8(chunk: bytes) -> np.ndarray:
    return _times_scales(struct.unpack("<4096b", chunk[64:]), chunk[:64], 256)


def _int4(chunk: bytes) -> np.ndarray:
    return _times_scales([code - 16 if code > 7 else code for code in _codes(chunk)], chunk[:128], 128)


def _fp4(chunk: bytes) -> np.ndarray:
    return _times_scales([-LEVELS[code - 8] if code > 7 else LEVELS[code] for code in _codes(chunk)], chunk[:128], 128)


def _codes(chunk: bytes) -> list[int]:
    codes = []
    for group in range(32):
        data = chunk[128 + 64 * group : 128 + 64 * (group + 1)]
        codes += [byte & 15 for byte in data] + [byte >> 4 for byte in data]
    return codes


def _times_scales(values: list[float] | tuple[int, ...], scales: bytes, group: int) -> np.ndarray:
    scale = np.frombuffer(scales, "<f4")
    with np.errstate(all="ignore"):
        out = np.array(values, np.float32).reshape(-1, group) * scale[:, None]
    out.view(np.uint32)[~np.isfinite(scale)] = 0x7FC00000
    return out.reshape(-1)


_DECODERS = {"fp32": _fp32, "bf16": _bf16, "int8": _int8, "int4": _int4, "fp4": _fp4, "topk": _topk}
