"""Regenerate decentra/wire/v1 from protos/: `python -m decentra.wire.generate` (needs the dev extra)."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def generate(target: Path) -> None:
    """Write the generated modules and stubs below `target` (which then holds decentra/wire/v1/)."""
    from grpc_tools import protoc

    protos = ROOT / "protos"
    files = sorted(str(path) for path in (protos / "decentra/wire/v1").glob("*.proto"))
    arguments = ["protoc", f"-I{protos}", f"--python_out={target}", f"--pyi_out={target}", *files]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed: see its message above")


if __name__ == "__main__":
    generate(ROOT)
