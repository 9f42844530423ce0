"""Bugs planted on purpose."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

PLANTED: dict[str, Callable[[], AbstractContextManager[None]]] = {}
