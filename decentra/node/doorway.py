"""The way into a run: out of a join string, out of what a state directory remembers, and on to others."""

from __future__ import annotations

import dataclasses
import json

from decentra.errors import StateError
from decentra.ledger.files import Files
from decentra.node.wiring import Door

FILE = "door.json"


def keep_door(files: Files, door: Door) -> None:
    """Remember it."""
    raw = {
        "run_id": door.run_id.hex(),
        "founder_key": door.founder_key.hex(),
        "token": door.token.hex(),
        "dht": list(door.dht),
        "entrances": [list(pair) for pair in door.entrances],
    }
    files.write(FILE, json.dumps(raw).encode())


def kept_door(files: Files) -> Door | None:
    """What was remembered; None where nothing was. Raises StateError."""
    kept = files.read(FILE)
    if kept is None:
        return None
    try:
        raw = json.loads(kept)
        entrances = tuple((str(endpoint), str(peer)) for endpoint, peer in raw["entrances"])
        run_id, founder_key, token = (bytes.fromhex(raw[name]) for name in ("run_id", "founder_key", "token"))
        return Door(run_id, founder_key, token, tuple(raw["dht"]), entrances)
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{FILE} is damaged; give --join STRING again, or another --state") from error


def door_for_others(door: Door, addresses: tuple[str, ...], entrances: tuple[tuple[str, str], ...]) -> Door:
    """The same run, entered through these DHT addresses and entrances first."""
    dht = tuple(address for address in dict.fromkeys((*addresses, *door.dht)) if address.startswith("/"))[:4]
    return dataclasses.replace(door, dht=dht, entrances=tuple(dict.fromkeys((*entrances, *door.entrances)))[:4])
