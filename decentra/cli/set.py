"""`decentra set`: an operator wishes other settings for a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from decentra.cli.interrupt import run
from decentra.cli.options import read
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Wish other settings for a run, at a node that runs. They hold from the sync after the one in which a quorum of the members wishes
    the very same: run it at that many nodes. Without KEY=VALUE: what holds, and who wishes what.

    Example: decentra set outer.inner_steps=50 codec.up=int4 --state state/tiny-0
             decentra set inner.decay_start_tokens=4000000 inner.decay_tokens=1000000 --state state/tiny-0
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Keys of [run] and their new values."""
    state: Path | None = None
    """State directory of a node of yours."""
    withdraw: bool = False
    """Take back what was wished at this node."""
    json: bool = False


def main(arguments: list[str]) -> int:
    """Leave a wish with the node, or show those that there are."""
    options = read(Options, arguments, "set")
    from decentra.settings import parse

    wanted = parse(options.words)
    if options.state is None:
        raise ConfigError("say at which node: --state with the state directory of a node that runs")
    if options.withdraw and wanted:
        raise ConfigError("--withdraw takes a wish back and KEY=VALUE makes one; give one of them")
    from decentra.build import wiring
    from decentra.node import wishing

    sight = run(wishing.see(options.state, wiring()))
    if options.withdraw:
        wishing.leave_wish(options.state, "")
        print(json.dumps({"withdrawn": True}) if options.json else "withdrawn: this node wishes nothing")
        return 0
    if not wanted:
        return _show(options, sight)
    return wish(options.state, sight, wanted, options.json)


def wish(state: Path, sight: Any, wanted: dict[str, Any], as_json: bool) -> int:
    """Leave a wish and say how many more must agree."""
    from decentra.node import wishing
    from decentra.settings import differences, next_text

    text = next_text(sight.founded, sight.settings, wanted)
    wishing.leave_wish(state, text)
    agreeing = wishing.wishers(sight, text)
    needed = wishing.still_needed(sight.own["view"], agreeing)
    if as_json:
        print(json.dumps({"settings": text, "wish": agreeing, "view": sight.own["view"], "more_needed": needed}))
        return 0
    there = f"{len(agreeing)} of {len(sight.own['view'])} members wish it, this node among them"
    more = f"{needed} more must agree: run the same command at their nodes" if needed else "a quorum: it holds from the next sync on"
    print(f"asked for {differences(sight.founded, sight.settings, text)}; {there}; {more}")
    return 0


def _show(options: Options, sight: Any) -> int:
    from decentra.settings import differences

    wishes = {status["peer"]: status["wish"] for status in sight.statuses if status["wish"]}
    if options.json:
        print(json.dumps({"settings": sight.settings, "wishes": wishes}))
        return 0
    print(f"settings: {differences(sight.founded, '', sight.settings) or 'as founded'}")
    for peer, text in wishes.items():
        print(f"  {peer[:8]} wishes {differences(sight.founded, sight.settings, text)}")
    return 0
