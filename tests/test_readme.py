"""The README keeps its word: what it names exists, its commands are commands, its snippet runs."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from decentra.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
TOP = ("docs", "protos", "nodes", "sims", "tests", "decentra", r"\.ci")


def tree() -> list[str]:
    """Paths of the annotated tree: two spaces in is below decentra/."""
    block = next(text for _, text in FENCED if "\ndecentra/ " in text)
    found = []
    for line in block.splitlines():
        names = re.split(r" {2,}", line.strip())
        words = line.split() if "README.md" in line else names[0].split()
        found += [("decentra/" if line.startswith("  ") else "") + word for word in words]
    return found


def named_paths() -> list[str]:
    """Every path that the README names, those of the tree included."""
    inline = re.findall(rf"(?<![\w/.])(?:{'|'.join(TOP)})/[\w./-]*[\w/]", README)
    linked = re.findall(r"\]\((?!http)([^)]+)\)", README)
    return sorted({*inline, *linked, *tree()})


def commands() -> list[list[str]]:
    """The words of every `decentra ...` command shown, in blocks and in the text."""
    shown = re.findall(r"^decentra [^#\n]*", README, re.M) + re.findall(r"`(decentra [^`]+)`", README)
    return [words for words in (line.split()[1:] for line in shown) if words[0] != "COMMAND"]


def test_the_tree_and_the_text_name_many_paths() -> None:
    assert len(named_paths()) > 30 and "decentra/rounds/" in named_paths() and "decentra/seams.py" in named_paths()


@pytest.mark.parametrize("name", named_paths())
def test_every_path_named_exists(name: str) -> None:
    path = ROOT / name
    assert path.is_dir() if name.endswith("/") else path.exists()


def test_every_package_of_decentra_is_in_the_tree() -> None:
    packages = {f"decentra/{path.parent.name}/" for path in (ROOT / "decentra").glob("*/__init__.py")}
    assert packages <= set(tree())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_shown_has_its_options(words: list[str]) -> None:
    assert words[0] in COMMANDS
    options = {f.name for f in dataclasses.fields(importlib.import_module(f"decentra.cli.{words[0]}").Options)}
    given = {word[2:].replace("-", "_") for word in words if word.startswith("--")}
    assert given <= options | {"help"}


def test_every_make_target_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"make (demo|test|setup|soak)\b", README))
    assert {"demo", "test", "setup"} <= named <= targets


def test_the_snippet_runs_and_prints_losses(tmp_path: Path) -> None:
    (snippet,) = [text for kind, text in FENCED if kind == "python"]
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        first, last = line.split("losses [")[1].split(",")[0], line.split()[-1]
        assert float(last) < float(first) - 0.5


def test_every_test_that_the_protocol_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 15 and named <= set(re.findall(r"def (test_\w+)\(", sources))
