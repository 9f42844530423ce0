"""Imports point one way: the arrows of docs' design, section 3, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import decentra

ROOT = Path(decentra.__file__).parent
LEAVES = ("types", "errors", "config", "settings", "seams")
LEDGER_PURE = tuple(f"ledger.{name}" for name in ("state", "entry", "chain", "intervals", "apply", "golden"))
ROUNDS_PURE = tuple(
    f"rounds.{name}"
    for name in (
        "view", "offers", "reduction", "partition", "ballot", "leases", "validate", "parts", "chase", "carried", "contribution", "lineage",
        "pacing", "flows", "merge", "phase",
    )
)  # fmt: skip
ANY_ROOM = ("codec", "outer", "ledger", "rounds", "wire", "transport", "directory", "identity", "model", "data", "train", "observe", "sim")

ARROWS: dict[str, tuple[str, ...]] = {
    "types": ("config",),
    "errors": (),
    "config": ("config", "errors"),
    "settings": ("config", "errors"),
    "seams": ("types",),
    "codec": ("codec", *LEAVES),
    "outer": ("outer", *LEAVES),
    **{module: ("codec.base", "outer", *LEDGER_PURE, *LEAVES) for module in LEDGER_PURE},
    "ledger": (),
    "ledger.files": LEAVES,
    "ledger.log": ("ledger.chain", "ledger.files", *LEAVES),
    "ledger.objects": ("ledger.chain", "ledger.files", *LEAVES),
    "ledger.sealed": ("ledger.chain", *LEAVES),
    "ledger.spool": ("ledger.chain", "ledger.files", *LEAVES),
    "ledger.store": ("ledger", "outer", *LEAVES),
    "model": ("model", *LEAVES),
    "data": ("data", *LEAVES),
    "scaling": ("scaling", *LEAVES),
    "wire": ("wire", *LEAVES),
    "transport": ("transport", "wire", *LEAVES),
    "directory": ("directory", "wire", *LEAVES),
    "identity": ("identity", "wire", *LEAVES),
    "observe": ("observe", *LEAVES),
    **{module: ("codec.base", "outer", *LEDGER_PURE, *ROUNDS_PURE, *LEAVES) for module in ROUNDS_PURE},
    "rounds.ballot": ("ledger.store", *LEDGER_PURE, *ROUNDS_PURE, *LEAVES),
    "rounds": ("codec.base", "outer", "ledger", "rounds", "wire.v1", "transport.base", "directory.base", *LEAVES),
    "train": ("train", "model", "data", "outer", "observe", *LEAVES),
    "node": (
        "node", "train", "outer", "codec.base", "rounds", "ledger", "transport.base", "directory.base", "wire", "identity", "observe",
        "scaling", *LEAVES,
    ),
    "sim": (*ANY_ROOM, "scaling", "build", "node", *LEAVES),
    "build": (*ANY_ROOM, "scaling", "node", *LEAVES),
    "cli": (*ANY_ROOM, "scaling", "node", "build", "cli", *LEAVES),
}  # fmt: skip
"""Whom a module may import. The longest key that is the module or a package above it counts."""


def modules() -> dict[str, Path]:
    """Every module of decentra by its name below the package, generated ones left out."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and not name.startswith("wire.v1"):
            found[name] = path
    return found


MODULES = modules()


def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, wherever the import stands; what is taken from where."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def inside(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def arrows_of(name: str) -> tuple[str, ...] | None:
    """What ARROWS says of a module; None where it is not drawn."""
    parts = name.split(".")
    keys = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((ARROWS[key] for key in keys if key in ARROWS), None)


def modules_in(prefixes: tuple[str, ...]) -> list[str]:
    return [name for name in MODULES if inside(name, prefixes)]


@pytest.mark.parametrize("name", MODULES)
def test_every_import_follows_a_drawn_arrow(name: str) -> None:
    allowed = arrows_of(name)
    assert allowed is not None, f"room {name} is not in the drawing"
    wrong = [
        f"{name}:{line} imports {target}"
        for line, target in imports(name)
        if target.split(".")[0] == "decentra" and not inside(target.removeprefix("decentra."), allowed)
    ]
    assert not wrong, "; ".join(wrong)


def test_every_drawn_key_is_a_module() -> None:
    assert [key for key in ARROWS if not modules_in((key,))] == []


def test_the_simulator_never_imports_the_daemon() -> None:
    daemon = ("decentra.node.daemon",)
    wrong = [f"{name}:{line}" for name in modules_in(("sim",)) for line, target in imports(name) if inside(target, daemon)]
    assert not wrong


def test_nothing_imports_what_is_outside_the_package() -> None:
    wrong = [f"{name}:{line} {target}" for name in MODULES for line, target in imports(name) if inside(target, ("nodes", "sims", "tests"))]
    assert not wrong


def test_only_build_the_command_line_and_the_simulator_import_build() -> None:
    users = {name.split(".")[0] for name in MODULES for _, target in imports(name) if inside(target, ("decentra.build",))}
    assert users <= {"build", "cli", "sim"}


def test_rooms_of_the_wire_and_the_leaves_do_not_import_torch() -> None:
    rooms = modules_in((*LEAVES, "wire", "transport", "directory", "identity", "observe"))
    wrong = [f"{name}:{line}" for name in rooms for line, target in imports(name) if inside(target, ("torch",))]
    assert not wrong


def test_only_one_file_imports_hivemind() -> None:
    users = {name for name in MODULES for _, target in imports(name) if inside(target, ("hivemind",))}
    assert users <= {"directory.hivemind_dht"}
    assert "hivemind" in MODULES["directory.hivemind_dht"].read_text()


IMPURE = ("asyncio", "time", "random", "threading", "datetime", "os", "io", "pathlib", "socket", "subprocess", "tempfile", "secrets")


@pytest.mark.parametrize("name", modules_in(("codec", "outer", *LEDGER_PURE, *ROUNDS_PURE)))
def test_pure_rooms_know_no_clock_no_file_no_chance_and_no_loop(name: str) -> None:
    found = [target for _, target in imports(name) if inside(target, IMPURE)]
    assert not found
    for node in ast.walk(tree_of(name)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), f"{name}:{node.lineno} is async"
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        assert called not in ("open", "print", "input"), f"{name}:{node.lineno} calls {called}"  # type: ignore[attr-defined]


def test_the_store_and_its_files_are_the_only_impure_ledger() -> None:
    on_disk = [f"ledger.{name}" for name in ("files", "log", "objects", "sealed", "spool", "store")]
    assert sorted(modules_in(("ledger",))) == sorted(["ledger", *LEDGER_PURE, *on_disk])


def test_a_wrong_arrow_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from decentra.rounds import member\n    import decentra.codec.int8\n")
    monkeypatch.setitem(MODULES, "outer.bad", bad)
    with pytest.raises(AssertionError, match=r"outer.bad:2 imports decentra.rounds.member; outer.bad:3 imports decentra.codec.int8"):
        test_every_import_follows_a_drawn_arrow("outer.bad")
    monkeypatch.setitem(MODULES, "attic.old", bad)
    with pytest.raises(AssertionError, match=r"room attic.old is not in the drawing"):
        test_every_import_follows_a_drawn_arrow("attic.old")
