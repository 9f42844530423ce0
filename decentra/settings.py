"""Settings: the keys of `[run]` that a swarm may change on its way, as the one canonical text that S and its entries carry.

JSON, keys sorted, no spaces: {"change":2,"set":{"codec.up":"int4","outer.inner_steps":50}}. `change` counts the changes so far,
so that a wish for one is a wish for no later one; `set` holds what differs from the manifest. Before the first it is "".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from decentra.config import RunConfig, check_run, from_dict, to_dict
from decentra.errors import ConfigError

KEYS = (
    "codec.down",
    "codec.up",
    "inner.decay_start_tokens",
    "inner.decay_tokens",
    "inner.lr",
    "outer.alpha",
    "outer.inner_steps",
    "outer.lr",
    "outer.overlap_steps",
    "stop_syncs",
    "stop_tokens",
)
MAX_CHARS = 1024

_LAYOUT = "it cuts the layout, which the manifest fixes; found a new run"
_FIXED = {key: _LAYOUT for key in ("outer.fragments", "model.dim", "model.num_layers", "model.ffn_dim")}


def parse(words: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words as an operator writes them; a leading `run.` may be left out. Raises ConfigError."""
    wanted: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.removeprefix("run.")
        if not equals or not value:
            raise ConfigError(f"{word!r} sets nothing; write KEY=VALUE such as outer.inner_steps=50")
        if key in wanted:
            raise ConfigError(f"{key} is given twice; give it once")
        _check_key(key)
        try:
            wanted[key] = json.loads(value)
        except ValueError:
            wanted[key] = value
    return wanted


def effective(run: RunConfig, text: str) -> RunConfig:
    """The manifest's `run` where these settings hold. Raises ConfigError: a key that may not change, a run that cannot train, a text
    that is not canonical."""
    if not text:
        return run
    change, values = _read(text)
    changed = _with(run, values)
    if _text(run, changed, change) != text:
        raise ConfigError("the settings are not in their canonical form")
    return changed


def next_text(run: RunConfig, text: str, wanted: Mapping[str, Any]) -> str:
    """What S would carry after `text` if `wanted` were agreed. Raises ConfigError, also where that changes nothing."""
    change, values = _read(text)
    for key in wanted:
        _check_key(key)
    following = _text(run, _with(run, {**values, **wanted}), change + 1)
    if _read(following)[1] == values:
        raise ConfigError(f"{', '.join(f'{key} = {value}' for key, value in wanted.items())} holds already; nothing to change")
    return following


def next_fault(run: RunConfig, text: str, following: str) -> str:
    """Why settings may not follow `text` in a run of this manifest; "" where they may."""
    try:
        effective(run, following)
        (change, values), (next_change, next_values) = _read(text), _read(following)
    except ConfigError as error:
        return str(error)
    if next_change != change + 1:
        return f"it is change {next_change} of the settings, where change {change + 1} is due"
    return "it changes no setting" if next_values == values else ""


def change_of(text: str) -> int:
    """How many changes led to these settings. Raises ConfigError."""
    return _read(text)[0]


def differences(run: RunConfig, text: str, following: str) -> str:
    """For people: the keys in which two settings differ and their values in the second. Raises ConfigError."""
    before, after = effective(run, text), effective(run, following)
    return ", ".join(f"{key} = {_value(after, key)}" for key in KEYS if _value(after, key) != _value(before, key))


def _read(text: str) -> tuple[int, dict[str, Any]]:
    if not text:
        return 0, {}
    if len(text) > MAX_CHARS:
        raise ConfigError(f"settings of {len(text)} characters are over the limit of {MAX_CHARS}")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the settings are not JSON") from error
    if not isinstance(raw, dict) or set(raw) != {"change", "set"} or type(raw["change"]) is not int or not isinstance(raw["set"], dict):
        raise ConfigError("the settings are not a change and what it sets")
    if not 0 < raw["change"] < 1 << 32:
        raise ConfigError(f"change {raw['change']} of the settings is none")
    for key in raw["set"]:
        _check_key(key)
    return raw["change"], raw["set"]


def _check_key(key: str) -> None:
    if key not in KEYS:
        why = _FIXED.get(key, f"those that can are {', '.join(KEYS)}")
        raise ConfigError(f"{key[:40]} cannot be changed in a run: {why}")


def _with(run: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    raw = to_dict(run)
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (raw[section] if section else raw)[name] = value
    changed: RunConfig = from_dict(RunConfig, raw, "settings", "run.")
    check_run(changed, "settings")
    return changed


def _text(run: RunConfig, changed: RunConfig, change: int) -> str:
    values = {key: _value(changed, key) for key in KEYS if _value(changed, key) != _value(run, key)}
    return json.dumps({"change": change, "set": values}, sort_keys=True, separators=(",", ":"))


def _value(run: RunConfig, key: str) -> Any:
    found: Any = run
    for name in key.split("."):
        found = getattr(found, name)
    return found
