"""What a person sees of a demo: a table that fits a terminal, lines where there is none, JSON and nothing else on request."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from decentra.cli import demo
from decentra.cli.main import main
from decentra.errors import ConfigError
from decentra.observe.table import headline, swarm_table
from decentra.rounds.status import status_of
from decentra.sim import demo as played
from decentra.sim.cluster import Cluster


@pytest.fixture()
def statuses(small_swarm: Cluster) -> list[dict[str, Any]]:
    """Three peers, each with the longest words that a status can hold."""
    from decentra.sim import clock

    async def ask() -> list[dict[str, Any]]:
        return [status_of(node.member) for node in small_swarm.nodes if node.member is not None]

    found: list[dict[str, Any]] = clock.run(ask())
    for status in found:
        status |= {"leading": True, "steps_done": 1000, "num_steps": 1000, "waiting_s": 1234.0, "bytes_up": 99_999_000_000}
        status["waiting_for"] = "a quorum: hears 1 of 3 members, not " + ", ".join(["abcdefgh"] * 9)
    return found


@pytest.mark.parametrize("width", [100, 120])
def test_the_table_fits_and_every_number_is_whole(statuses: list[dict[str, Any]], width: int) -> None:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(swarm_table(statuses, 20, 3723.0, "decentra demo"))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 3 + len(statuses) and max(map(len, lines)) <= width
    for status, line in zip(statuses, lines[3:], strict=True):
        for whole in (status["peer"][:8], "leads", status["state_hash"][:8], "1000/1000", "99.999 GB"):
            assert whole in line
        assert "a quorum: hears 1 of 3" in line and line.rstrip().endswith("…")


def test_the_headline_fits_90_columns(statuses: list[dict[str, Any]]) -> None:
    first, second = headline(statuses, 20, 99999.0, "decentra demo")
    assert len(first) < 90 and len(second) < 90 and "outer step 5/20" in first and "averaged 3" in second


def test_no_peers_yet_is_said() -> None:
    console = Console(width=100, file=io.StringIO())
    console.print(swarm_table([], 20, 1.0))
    assert "no peer answers yet" in console.file.getvalue()  # type: ignore[attr-defined]


def test_json_is_all_that_stdout_gets(
    statuses: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def play_demo(settings: Any, run: Any, show: Any) -> None:
        print("noise of a library", file=sys.stderr)
        show([], 0.5, "the founder prepares")
        show(statuses, 3.0, "")
        show(statuses, 4.0, "")

    summary = {"hashes_equal": True, "finished": True, "peers": []}
    monkeypatch.setattr(played, "play_demo", play_demo)
    monkeypatch.setattr(played, "report", lambda *_: (summary, ["line for people"]))
    assert main(["demo", "--json", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == summary and captured.out.count("\n") == 1
    assert captured.err.count("outer step 5/20") == 1 and "the founder prepares" in captured.err
    summary["finished"] = False
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "line for people" in capsys.readouterr().out


def test_the_report_goes_only_where_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="no demo's"):
        played.make_out(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    for name in ("run.toml", "bootstrap.log", "summary.json"):
        (tmp_path / "former" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "former" / name).write_text("")
    played.make_out(tmp_path / "former")
    assert list((tmp_path / "former").iterdir()) == []
    played.make_out(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()


def test_a_line_is_said_once() -> None:
    console = Console(width=100, file=io.StringIO())
    lines = demo._Lines(console, 20)
    for second in range(3):
        lines([], float(second), "the bootstrap node starts")
    lines([], 4.0, "")
    assert console.file.getvalue() == "the bootstrap node starts (0 s)\n"  # type: ignore[attr-defined]
