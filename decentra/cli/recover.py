"""`decentra recover`: an operator forces a view where more than half of the members are gone for good."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tyro

from decentra.cli.options import read
from decentra.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Go on without the members that are gone for good: signs a view of those that stay, from which a new lineage begins.

    Only where no quorum will come back: members that are left out but live start a second history, and where both meet, the
    one with fewer forced views and a quorum at work stands. Then start the node again; the others that stay follow it.

    Example: decentra recover state/tiny-0                              (prints the last view)
             decentra recover state/tiny-0 --keep q5tr --keep hz2b      (keeps these two and the node of state/tiny-0)
    """

    state: tyro.conf.Positional[Path]
    """State directory of a member that stays and is not running; best the one with the newest entry."""
    keep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A member that stays, by a unique beginning of its id; once for each. The node of the state directory always stays."""
    alone: bool = False
    """Keep nobody but the node of the state directory."""
    key: Path | None = None
    """Key file of an operator of the run (the founder is one); default identity.pem of the state directory."""
    json: bool = False


def main(arguments: list[str]) -> int:
    """Sign and write the forced view."""
    options = read(Options, arguments, "recover")
    if not (options.state / "manifest.bin").is_file():
        raise ConfigError(f"{options.state} holds no run; give the state directory of a node")
    if options.alone and options.keep:
        raise ConfigError("--alone keeps nobody else and --keep names who stays; give one of them")
    from decentra.ledger.files import DiskFiles
    from decentra.node.entering import naming_the_state
    from decentra.sim.offline import open_state

    with naming_the_state(options.state):
        opened = open_state(options.state)
    try:
        with naming_the_state(options.state):
            return _recover(options, opened)
    finally:
        cast(DiskFiles, opened.store.files).close()


def _recover(options: Options, opened: Any) -> int:
    from decentra.identity.keys import IDENTITY_FILE, Identity
    from decentra.identity.signing import IdentitySigner
    from decentra.rounds import recovery

    own = Identity.load(options.state).peer
    reached = opened.restore()
    member = reached.state.member(own)
    if member is None or member.incarnation != opened.store.incarnation:
        raise ConfigError(f"the node of {options.state}, {own[:8]}, is no member of its last view; give the state directory of a member")
    if not options.keep and not options.alone:
        _print_view(options, reached, own)
        raise ConfigError("say who stays: --keep with the beginning of an id, once for each member that is still there, or --alone")
    key = options.key or options.state / IDENTITY_FILE
    keep = recovery.kept(reached.state, own, options.keep)
    after = recovery.force(opened.store, opened.run, reached, opened.tensors, IdentitySigner(Identity.read(key)), keep)
    state, removed = after.state, [peer for peer in reached.state.peers() if peer not in keep]
    if options.json:
        told = {"entry": state.r, "lineage": state.lineage, "view": list(state.peers()), "removed": removed}
        print(json.dumps({**told, "state_hash": after.state_hash.hex()}))
    else:
        print(f"forced view of entry {reached.state.r}: stays {', '.join(state.peers())}; removed {', '.join(removed)}")
        print(f"lineage {state.lineage[:16]} begins; start the node again: decentra node --state {options.state}")
    return 0


def _print_view(options: Options, reached: Any, own: str) -> None:
    view = [(m.peer, m.peer == own, m.unheard_syncs) for m in reached.state.members]
    if options.json:
        members = [{"peer": peer, "this_node": here, "unheard_syncs": unheard} for peer, here, unheard in view]
        print(json.dumps({"entry": reached.state.r, "view": members}))
        return
    print(f"view at entry {reached.state.r}, oldest member first:")
    for peer, here, unheard in view:
        print(f"  {peer}  {'this node' if here else f'unheard for {unheard} syncs'}")
