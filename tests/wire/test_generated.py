"""The committed wire modules are what the protos give."""

from __future__ import annotations

from pathlib import Path

from decentra.wire.generate import ROOT, generate


def test_generating_again_changes_no_byte(tmp_path: Path) -> None:
    generate(tmp_path)
    made = {path.name: path.read_bytes() for path in (tmp_path / "decentra/wire/v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "decentra/wire/v1").glob("*_pb2.py*")}
    protos = list((ROOT / "protos/decentra/wire/v1").glob("*.proto"))
    assert len(made) == 2 * len(protos) > 0
    assert made.keys() == committed.keys()
    assert [name for name in made if made[name] != committed[name]] == []
