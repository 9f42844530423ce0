"""`decentra recover` on the state directories of a swarm that has ended."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from decentra.cli.main import main
from decentra.errors import ConfigError
from decentra.ledger.files import DiskFiles
from decentra.rounds.recovery import kept
from decentra.sim.cluster import Cluster
from decentra.sim.offline import open_state

Captured = pytest.CaptureFixture[str]


@pytest.fixture()
def states(tmp_path: Path, small_swarm: Cluster) -> list[Path]:
    """The state directories of three members, the founder's first, as daemons leave them."""
    assert small_swarm.run is not None
    folders = []
    for node in small_swarm.nodes:
        folder = tmp_path / f"state-{node.number}"
        for name, data in (*node.ports.store.files._files.items(), ("manifest.bin", small_swarm.run.manifest)):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        node.identity.save(folder)
        folders.append(folder)
    return folders


def said(capsys: Captured, *arguments: object, code: int) -> tuple[str, str]:
    """(stdout, the one sentence on stderr) of a command that ends with `code`."""
    assert main([str(a) for a in arguments]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.err.count("decentra: ") == (1 if code else 0)
    return captured.out, captured.err


def view(state: Path) -> tuple[str, ...]:
    opened = open_state(state)
    opened.store.files.close()  # type: ignore[attr-defined]
    return opened.restore().state.peers()


def test_the_founder_goes_on_with_whom_it_names_and_the_state_replays(capsys: Captured, states: list[Path], small_swarm: Cluster) -> None:
    peers = view(states[0])
    own = small_swarm.nodes[0].identity.peer
    other, gone = (p for p in peers if p != own)
    told = json.loads(said(capsys, "recover", states[0], "--keep", other[:5], "--json", code=0)[0])
    assert told["view"] == [p for p in peers if p != gone] and told["removed"] == [gone]
    reached = json.loads(said(capsys, "replay", states[0], "--json", code=0)[0])
    assert (reached["entry"], reached["state_hash"]) == (told["entry"], told["state_hash"])
    opened = open_state(states[0])
    opened.store.files.close()  # type: ignore[attr-defined]
    by_log = opened.store.snapshots()[-2]
    assert opened.restore().state.lineage == told["lineage"] and by_log < told["entry"]


def test_another_member_goes_on_alone_with_the_founders_key(capsys: Captured, states: list[Path], small_swarm: Cluster) -> None:
    out, _ = said(capsys, "recover", states[1], "--alone", "--key", states[0] / "identity.pem", code=0)
    assert view(states[1]) == (small_swarm.nodes[1].identity.peer,) and "start the node again" in out
    _, error = said(capsys, "recover", states[1], "--alone", "--key", states[0] / "identity.pem", code=2)
    assert "every member of the view stays, so there is nothing to force" in error


def test_who_is_no_operator_is_refused_and_told_who_is(capsys: Captured, states: list[Path], small_swarm: Cluster) -> None:
    before = view(states[1])
    _, error = said(capsys, "recover", states[1], "--alone", code=1)
    founder, other = (node.identity.peer for node in small_swarm.nodes[:2])
    assert f"{other[:8]} is none; the founder, {founder}, is one: its key is identity.pem" in error and "--key FILE" in error
    assert view(states[1]) == before


def test_without_names_the_view_is_shown_and_asked_for(capsys: Captured, states: list[Path]) -> None:
    out, error = said(capsys, "recover", states[0], code=2)
    assert all(peer in out for peer in view(states[0])) and out.count("this node") == 1
    assert "say who stays: --keep" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep", "0nobody"], "--keep '0nobody' is the beginning of no member's id; the last view is"),
        (["--keep", ""], "--keep '' is the beginning of no member's id"),
        (["--alone", "--keep", "a"], "give one of them"),
        (["--alone", "--key", "nowhere.pem"], "nowhere.pem"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(capsys: Captured, states: list[Path], arguments: list[str], words: str) -> None:
    _, error = said(capsys, "recover", states[0], *arguments, code=1 if "--key" in arguments else 2)
    assert words in error


def test_a_beginning_of_two_ids_is_refused(states: list[Path]) -> None:
    opened = open_state(states[0])
    opened.store.files.close()  # type: ignore[attr-defined]
    state = opened.restore().state
    first, second = state.peers()[:2]
    twin = dataclasses.replace(state.members[0], peer=first[:6] + "x" * 26)
    doubled = dataclasses.replace(state, members=(*state.members, twin))
    with pytest.raises(ConfigError, match="is the beginning of 2 members' ids"):
        kept(doubled, second, [first[:4]])
    assert kept(doubled, second, [first[:9]]) == (first, second)


def test_a_running_node_or_a_stranger_is_refused(capsys: Captured, states: list[Path]) -> None:
    held = DiskFiles(states[0])
    _, error = said(capsys, "recover", states[0], "--alone", code=1)
    assert "is in use by another process" in error
    held.close()
    (states[0] / "vote.json").unlink()
    _, error = said(capsys, "recover", states[0], "--alone", code=2)
    assert "is no member of its last view" in error
    _, error = said(capsys, "recover", states[0].parent / "none", "--alone", code=2)
    assert "holds no run" in error
