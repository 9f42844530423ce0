"""`decentra set` and `decentra tune`, told what a swarm's nodes say of themselves."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decentra.build import wiring
from decentra.cli.main import main
from decentra.config import RunConfig
from decentra.errors import SetupError
from decentra.node import wishing
from decentra.node.wishing import Sight
from decentra.rounds.status import status_of
from decentra.rounds.wishes import WISH_FILE
from decentra.settings import next_text
from decentra.sim import clock
from decentra.sim.cluster import Cluster

Captured = pytest.CaptureFixture[str]


@pytest.fixture()
def sight(tmp_path: Path, small_run: RunConfig, small_swarm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Sight:
    """What the second of three members of a swarm, and its peers, say; its state directory is the present one."""
    async def told() -> list[dict[str, Any]]:
        return [json.loads(json.dumps(status_of(node.member))) for node in small_swarm.nodes if node.member is not None]

    statuses = clock.run(told())
    view = statuses[0]["view"]
    found = Sight(small_run, next(s for s in statuses if s["peer"] == view[1]), statuses)

    async def see(state: Path, wiring: object) -> Sight:
        return found

    monkeypatch.setattr(wishing, "see", see)
    monkeypatch.chdir(tmp_path)
    return found


def said(capsys: Captured, *words: str) -> str:
    assert main([*words, "--state", "."]) == 0
    return capsys.readouterr().out


def test_a_wish_is_left_with_the_node_which_says_how_many_more_must_agree(capsys: Captured, sight: Sight) -> None:
    assert said(capsys, "set") == "settings: as founded\n"
    text = next_text(sight.founded, "", {"outer.inner_steps": 7, "codec.up": "int4"})
    told = said(capsys, "set", "outer.inner_steps=7", "codec.up=int4")
    assert told.startswith("asked for codec.up = int4, outer.inner_steps = 7; 1 of 3 members wish it, this node among them; 1 more must ")
    assert Path(WISH_FILE).read_text() == text
    other = next(s for s in sight.statuses if s["peer"] != sight.own["peer"])
    other["wish"] = text
    assert f"{other['peer'][:8]} wishes codec.up = int4, outer.inner_steps = 7" in said(capsys, "set")
    assert json.loads(said(capsys, "set", "outer.inner_steps=7", "codec.up=int4", "--json"))["more_needed"] == 0
    assert "withdrawn" in said(capsys, "set", "--withdraw") and not Path(WISH_FILE).exists()


def test_what_holds_already_is_said_and_nothing_is_left(capsys: Captured, sight: Sight) -> None:
    assert main(["set", "outer.inner_steps=5", "--state", "."]) == 2
    assert "outer.inner_steps = 5 holds already" in capsys.readouterr().err and not Path(WISH_FILE).exists()


@pytest.mark.parametrize(
    ("agreeing", "needed"), [("", 2), ("a", 1), ("b", 1), ("d", 1), ("bc", 1), ("ab", 0), ("bcd", 0), ("cd", 1), ("abcd", 0)]
)
def test_the_oldest_of_an_even_view_decides_ties(agreeing: str, needed: int) -> None:
    assert wishing.still_needed(tuple("abcd"), set(agreeing)) == needed


def test_tuning_names_its_reasons_and_wishes_what_it_names(capsys: Captured, sight: Sight) -> None:
    for status in sight.statuses:
        assert status["measured"]["step_s"] == pytest.approx(0.2)
        status["measured"] = {"step_s": 0.2, "rate_bytes_per_s": 4e6, "one_way_s": 0.05, "work_s": 0.1, "num_elements": 10_000_000}
    told = said(capsys, "tune")
    present, choice, command = told.splitlines()
    assert "a step 200 ms, a link of 32 Mbit/s and 50 ms one way, 3 members; H 5, P 1, tau 0, fp32 computes for " in present
    assert choice.startswith("for 95%: H ") and "the best there is" not in choice
    assert command.startswith("decentra set ") and command.endswith(" --state .") and not Path(WISH_FILE).exists()
    assert "1 more must agree" in said(capsys, "tune", "--set")
    wished = json.loads(Path(WISH_FILE).read_text())["set"]
    assert command == f"decentra set {' '.join(f'{key}={wished[key]}' for key in wishing.TUNED if key in wished)} --state ."
    plain = json.loads(said(capsys, "tune", "--json", "--codecs", "fp32", "--overlap", "0", "--steps", "5", "20"))
    assert plain["reached"] is False and plain["set"] == {"outer.inner_steps": 20}


def test_without_a_measurement_there_is_no_plan(capsys: Captured, sight: Sight) -> None:
    for status in sight.statuses:
        status["measured"]["step_s"] = 0.0
    assert main(["tune", "--state", "."]) == 1
    assert "nothing is measured; ask again in a while" in capsys.readouterr().err


def test_a_node_says_once_what_its_settings_give_and_what_would_be_chosen(small_swarm: Cluster) -> None:
    member = next(n.member for n in small_swarm.nodes if n.member is not None and math.isfinite(n.member.trip.idle_s))
    said: list[str] = []
    clock.run(wishing.tell_plan(SimpleNamespace(note=said.append), member))  # type: ignore[arg-type]
    assert len(said) == 2 and said[0].startswith("measured: a step 200 ms, a link of ") and said[1].startswith("for 95%: H ")


def test_a_node_that_has_not_run_is_named(tmp_path: Path, small_swarm: Cluster) -> None:
    assert small_swarm.run is not None
    (tmp_path / "manifest.bin").write_bytes(small_swarm.run.manifest)
    with pytest.raises(SetupError, match="has not run yet; start it: decentra node --state"):
        asyncio.run(wishing.see(tmp_path, wiring()))
