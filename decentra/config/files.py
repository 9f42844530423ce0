"""Sections from TOML and from bytes, strictly, and back into canonical bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from decentra.config.rules import check_node, check_run
from decentra.config.sections import Config, InnerConfig, RunConfig
from decentra.errors import ConfigError


def load(path: Path) -> Config:
    """Read a TOML config file. Raises ConfigError naming file, key and remedy."""
    config: Config = from_dict(Config, read_toml(path, "config"), str(path), "")
    check_run(config.run, str(path))
    check_node(config.node, f"{path}: node.")
    return config


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; `what` it is, for a person. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def from_dict(kind: type, raw: object, place: str, prefix: str) -> Any:
    """Build a config dataclass from plain values, strictly. Raises ConfigError."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{place}: [{prefix.rstrip('.')}] must be a table, not {raw!r}")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    for key in raw:
        if key not in known:
            raise ConfigError(f"{place}: unknown key {prefix}{key}; known here: {', '.join(sorted(known))}")
    for f in dataclasses.fields(kind):
        if f.name not in raw and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{place}: key {prefix}{f.name} is missing; add it")
    values = {key: _value(hints[key], value, place, prefix + key) for key, value in raw.items()}
    return kind(**values)


def _value(hint: Any, value: object, place: str, key: str) -> Any:
    if isinstance(hint, types.UnionType):
        options = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        return None if value is None else _value(options[0], value, place, key)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, place, key + ".")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{place}: {key} = {value!r} must be a list")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, each, place, f"{key}[{index}]") for index, each in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1000:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{place}: {key} = {value!r} must be of type {hint.__name__}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a config dataclass."""
    return dataclasses.asdict(config)


def run_bytes(run: RunConfig) -> bytes:
    """Canonical bytes of `[run]`: JSON, keys sorted, no spaces. This is what the manifest carries and hashes."""
    return json.dumps(to_dict(run), sort_keys=True, separators=(",", ":")).encode()


def inner_bytes(inner: InnerConfig) -> bytes:
    """Canonical bytes of `[run.inner]`, as a trainer is given it with a slot."""
    return json.dumps(to_dict(inner), sort_keys=True, separators=(",", ":")).encode()


def inner_from_bytes(data: bytes) -> InnerConfig:
    """What `inner_bytes` wrote. Raises ConfigError, ValueError."""
    inner: InnerConfig = from_dict(InnerConfig, json.loads(data), "slot", "run.inner.")
    return inner


def config_hash(run: RunConfig) -> str:
    """Names a `[run]` for people: 16 hex digits."""
    return hashlib.blake2b(run_bytes(run), digest_size=8).hexdigest()


def run_from_bytes(data: bytes) -> RunConfig:
    """The `[run]` that a manifest carries. Raises ConfigError."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the manifest's settings cannot be read: {error}") from error
    run: RunConfig = from_dict(RunConfig, raw, "manifest", "run.")
    check_run(run, "manifest")
    return run


def differing_keys(left: RunConfig, right: RunConfig) -> list[str]:
    """Dotted names of the `[run]` keys in which two configs differ."""

    def walk(a: dict[str, Any], b: dict[str, Any], prefix: str) -> list[str]:
        names: list[str] = []
        for key, value in a.items():
            if isinstance(value, dict):
                names += walk(value, b[key], f"{prefix}{key}.")
            elif value != b[key]:
                names.append(prefix + key)
        return names

    return walk(to_dict(left), to_dict(right), "run.")
