"""The benchmark of the exchange measures swarms that truly averaged, and says so where one did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from sims.benchmarks.crew import Crew
from sims.benchmarks.exchange import MARKS, Cell, _decentra_round, decentra, lines_of
from sims.benchmarks.links import Link


def test_two_daemons_average_two_million_parameters(tmp_path: Path) -> None:
    cell = Cell(peers=2, params=2_000_000, link="loopback", rounds=1)
    with Link(cell.link, cell.peers) as places:
        row = decentra(cell, places, tmp_path)
    assert row["fault"] == ""
    assert 0 < row["exchange_s"] <= row["seconds"]
    # A peer sends half of its contribution and the half that it reduced; its messages add some kilobytes.
    assert row["encoded_bytes"] <= row["wire_bytes"] < 1.1 * row["encoded_bytes"]
    named = {"name": "decentra", "peers": 2, "params": cell.params, "link": cell.link, "load": 0.0, "raw_bytes_per_s": 1e9}
    table = lines_of([{**named, **row, "share": 0.5, "share_whole": 0.4}])
    assert any("decentra " in line and "40.0%" in line for line in table) and any("wall / CPU s by phase" in line for line in table)


def test_a_peer_that_counted_fewer_or_moved_elsewhere_is_no_result() -> None:
    def peer(averaged: int, error: float) -> dict[str, Any]:
        marks = {name: (float(at), float(at), at) for at, name in enumerate(MARKS)}
        measured = {"bytes_up": 1, "fsync_s": 0.0, "write_s": 0.0, "attempts": 1, "floor": 0}
        return {"marks": marks, "averaged": averaged, "error": error, **measured}

    assert _decentra_round([peer(2, 0.01), peer(2, 0.01)])["fault"] == ""
    assert "averaged [2, 1]" in _decentra_round([peer(2, 0.01), peer(1, 0.01)])["fault"]
    assert "off by 0.7" in _decentra_round([peer(2, 0.01), peer(2, 0.7)])["fault"]


def test_what_a_process_of_a_crew_started_ends_with_the_crew_though_it_ended_first(tmp_path: Path) -> None:
    starts = "import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
    (tmp_path / "starts_another.py").write_text(starts)
    with Crew([["starts_another"]], [""], {"PYTHONPATH": str(tmp_path)}) as crew:
        left = psutil.Process(crew.hear(60.0)[0])
        crew._processes[0].wait(60.0)
    left.wait(10.0)
