"""Wishes for other settings: an operator asks at a node, its heartbeats carry the wish, signed, and a leader puts into the entry of a
sync what a quorum of the view wishes in the same words, with those signatures. No peer changes a setting alone.

The command `set` leaves the wish in the state directory; it outlives restarts and goes once it is agreed or overtaken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from decentra import settings
from decentra.errors import ConfigError
from decentra.ledger.entry import Entry
from decentra.ledger.state import Member as ViewMember
from decentra.ledger.state import State
from decentra.rounds.ports import Run
from decentra.rounds.records import DOMAIN_WISH, to_signed
from decentra.rounds.view import is_quorum
from decentra.seams import Verifier
from decentra.types import PeerId
from decentra.wire.v1 import swarm_pb2

if TYPE_CHECKING:
    from decentra.rounds.member import Member

WISH_FILE = "wish.json"
"""The settings text that the operator of this node wishes."""


# -- this node's own ----------------------------------------------------------------------------------------------------


def mind(member: Member) -> None:
    """Take up what the operator of this node asked for; drop what is agreed, overtaken or cannot be."""
    raw = member.ports.store.files.read(WISH_FILE)
    text = "" if raw is None else raw.decode(errors="replace")
    if text == member.wish and not text:
        return
    wished, held = "", member.state.settings
    if text and text == held:
        _drop(member, "the settings asked for at this node hold")
    elif text and (fault := settings.next_fault(member.run.founded, held, text)):
        if not _is_ahead(held, text):
            _drop(member, f"the wish for other settings is dropped: {fault}")
    elif text:
        wished = text
        if text != member.wish:
            member.ports.note(f"this node wishes {settings.differences(member.run.founded, held, text)}")
    if wished != member.wish:
        member.wish = wished
        member.changed.notify()


def _drop(member: Member, why: str) -> None:
    member.ports.note(why)
    member.ports.store.files.remove(WISH_FILE)


def _is_ahead(held: str, text: str) -> bool:
    """Whether a wish is for a change after the next: this node has yet to catch up."""
    try:
        return settings.change_of(text) > settings.change_of(held) + 1
    except ConfigError:
        return False


def own(member: Member) -> bytes:
    """This node's wish, signed; b"" where it has none."""
    if not member.wish:
        return b""
    payload = _payload(member.run, member.state, member.wish, member.me)
    return member.ports.signer.sign(DOMAIN_WISH, payload)


def _payload(run: Run, state: State, text: str, member: ViewMember) -> bytes:
    return swarm_pb2.Wish(
        run_id=run.run_id,
        lineage=bytes.fromhex(state.lineage),
        settings=text.encode(),
        peer=member.peer,
        incarnation=member.incarnation,
    ).SerializeToString()


# -- agreeing -----------------------------------------------------------------------------------------------------------


def agreed(member: Member) -> tuple[str, tuple[bytes, ...]]:
    """(settings that a quorum of the view wishes, its wishes in order of peers), as this leader has heard; ("", ()) where none does."""
    heard = {peer: beat.wish for peer, beat in member.beats.items() if beat.wish and member.is_fresh(beat)} | {member.peer: own(member)}
    by_text: dict[str, dict[PeerId, bytes]] = {}
    for peer, signed in sorted(heard.items()):
        known = member.state.member(peer)
        text = _text_of(signed)
        if known is not None and text and not _wish_fault(member.run, member.ports.verifier, member.state, known, text, signed):
            by_text.setdefault(text, {})[peer] = signed
    for text, signed_by in by_text.items():
        if is_quorum(member.state.members, signed_by):
            if fault := settings.next_fault(member.run.founded, member.state.settings, text):
                member.say_once(f"a quorum wishes settings that cannot be: {fault}")
                continue
            return text, tuple(signed_by.values())
    return "", ()


def settings_fault(run: Run, verifier: Verifier, state: State, entry: Entry) -> str:
    """Why an entry may not bring its settings, or its wishes for them; "" where it may, or brings none."""
    if not entry.settings:
        return "it carries wishes, but no settings" if entry.wishes else ""
    if entry.sync is None:
        return "it changes settings, which only the entry of a sync may"
    if fault := settings.next_fault(run.founded, state.settings, entry.settings):
        return f"its settings may not be: {fault}"
    if len(entry.wishes) > len(state.members):
        return f"it carries {len(entry.wishes)} wishes in a view of {len(state.members)}"
    peers: list[PeerId] = []
    for signed in entry.wishes:
        peer = _peer_of(signed)
        known = state.member(peer)
        if known is None:
            return f"it carries a wish of {peer[:8]!r}, which is no member"
        if fault := _wish_fault(run, verifier, state, known, entry.settings, signed):
            return fault
        peers.append(peer)
    if peers != sorted(set(peers)):
        return "its wishes are doubled or out of order"
    if not is_quorum(state.members, peers):
        return f"only {len(peers)} of {len(state.members)} members wish its settings, which is no quorum"
    return ""


def _wish_fault(run: Run, verifier: Verifier, state: State, member: ViewMember, text: str, signed: bytes) -> str:
    """Why signed bytes are no wish of this member for these settings; "" where they are."""
    try:
        peer, payload = verifier.open(DOMAIN_WISH, signed)
    except ValueError as error:
        return f"the wish of {member.peer[:8]} does not hold: {error}"
    if peer != member.peer or payload != _payload(run, state, text, member):
        return f"the wish of {member.peer[:8]} is for something else"
    return ""


def _opened(signed: bytes) -> swarm_pb2.Wish:
    """What signed bytes say, not verified."""
    try:
        return swarm_pb2.Wish.FromString(to_signed(signed).payload)
    except (DecodeError, ValueError):
        return swarm_pb2.Wish()


def _text_of(signed: bytes) -> str:
    return _opened(signed).settings.decode(errors="replace") if signed else ""


def _peer_of(signed: bytes) -> PeerId:
    return _opened(signed).peer
