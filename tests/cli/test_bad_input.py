"""What an operator can get wrong: one clear sentence on stderr, the right exit code, nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from decentra.cli.main import COMMANDS, main
from decentra.config import run_bytes
from decentra.directory import hivemind_dht
from decentra.errors import PeerFault, SetupError
from decentra.identity.invite import Entrance, Invite, encode
from decentra.identity.keys import Identity
from decentra.identity.signing import IdentitySigner
from decentra.identity.tls import tls_material
from decentra.ledger import files as ledger_files
from decentra.rounds import catchup
from decentra.rounds.serve import Server
from decentra.sim.cluster import Cluster
from decentra.transport.base import Contact
from decentra.transport.grpc import GrpcTransport
from decentra.transport.memory import MemoryTransport
from decentra.types import PROTOCOL_VERSION
from decentra.wire.v1 import rounds_pb2

WITHIN_S = 15.0

SMALL = """
[run]
name = "small"
[run.model]
dim = 32
num_layers = 1
num_heads = 2
num_kv_heads = 2
[run.data]
vocab_size = 512
context = 32
max_text_bytes = 400_000
[node]
dht = false
"""

Fails = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What commands import on their way: from a cold disk that takes longer than a person may be kept waiting."""
    for name in ("hivemind.dht.node", "hivemind.p2p", *(f"decentra.cli.{command}" for command in COMMANDS)):
        importlib.import_module(name)
    for name in ("node.daemon", "sim.demo", "sim.offline", "sim.simulate", "train.alone", "model.hf", "rounds.recovery"):
        importlib.import_module(f"decentra.{name}")


@pytest.fixture()
def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Runs a command in an empty directory and gives its one sentence; `code` is its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int) -> str:
        start = time.monotonic()
        assert main(list(arguments)) == code
        assert time.monotonic() - start < WITHIN_S
        captured = capsys.readouterr()
        said = [line for line in captured.err.splitlines() if line.startswith("decentra: ")]
        assert len(said) == 1 and captured.err.endswith(said[0] + "\n"), captured.err
        assert "Traceback" not in captured.err and captured.out == ""
        return said[0]

    return run


@pytest.fixture()
def run_file(tmp_path: Path) -> str:
    (tmp_path / "run.toml").write_text(SMALL)
    return "run.toml"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join_string(*entrances: str, token: bytes = b"t" * 16, dht: tuple[str, ...] = (), run_id: bytes = b"r" * 16) -> str:
    return encode(Invite(run_id, b"f" * 32, token, dht, tuple(Entrance(e) for e in entrances)))


# -- what is typed ------------------------------------------------------------------------------------------------------


def test_an_unknown_command_is_named_beside_the_known_ones(fails: Fails) -> None:
    said = fails("trian", code=2)
    assert "unknown command 'trian'" in said and all(name in said for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["node", "--prot", "7"], ["--prot", "see decentra node --help"]),
        (["node", "--port", "seven"], ["--port", "seven"]),
        (["node", "--run", "run.toml", "--port", "70000"], ["--port 70000", "1 to 65535"]),
        (["node", "--run", "run.toml", "--reachable", "maybe"], ["--reachable 'maybe'", "auto, yes or no"]),
        (["node", "--run", "run.toml", "--reachable", "no"], ["a founder must be reachable", "nobody could join"]),
        (["node", "--join", "decentra1aa", "--reachable", "no", "--announce", "home"], ["--announce home", "announces no address"]),
        (["node", "--run", "run.toml", "--link", "fast"], ["'fast'", "100mbit,50ms"]),
        (["node", "--run", "run.toml", "--bootstrap", "home:1"], ["--bootstrap 'home:1'", "decentra bootstrap prints"]),
        (["node"], ["--run RUN.toml", "--join STRING"]),
        (["node", "--state", "nowhere"], ["nowhere holds no run"]),
        (["node", "--run", "run.toml", "--join", "decentra1aa"], ["--run", "--join", "one of them"]),
        (["node", "--run", "none.toml"], ["none.toml", "No such file"]),
        (["bootstrap", "--announce", "home"], ["--announce home", "--port"]),
        (["bootstrap", "--port", "-2"], ["--port -2"]),
        (["replay", "nowhere"], ["nowhere holds no run"]),
        (["replay", "."], [". holds no run"]),
        (["sim", "none.toml"], ["none.toml", "No such file"]),
        (["set", "inner.lr=0.1"], ["--state", "a node that runs"]),
        (["set", "inner.lr", "--state", "."], ["'inner.lr' sets nothing", "KEY=VALUE"]),
        (["set", "outer.fragments=2", "--state", "."], ["outer.fragments cannot be changed", "the layout"]),
        (["set", "seed=2", "--state", "."], ["seed cannot be changed", "outer.inner_steps"]),
        (["set", "inner.lr=0.1", "--state", "."], [". holds no run"]),
        (["set", "inner.lr=0.1", "--withdraw", "--state", "."], ["--withdraw", "one of them"]),
        (["tune"], ["--state", "a node that runs"]),
        (["tune", "--state", "nowhere"], ["nowhere holds no run"]),
        (["tune", "--state", ".", "--share", "1.5"], ["--share 1.5", "between 0 and 1"]),
        (["tune", "--state", ".", "--steps", "50", "10"], ["--steps 50 10", "10 300"]),
        (["tune", "--state", ".", "--codecs", "topk"], ["--codecs 'topk'", "int8"]),
        (["demo", "--peers", "1"], ["--peers 1", "at least 2 peers"]),
        (["demo", "--codec", "int3"], ["--codec 'int3'", "use one of fp32, bf16, int8"]),
        (["demo", "--kill", "leader,cat"], ["--kill 'leader,cat'", "'cat'", "leader and reducer"]),
        (["demo", "--link", "fast"], ["'fast'", "100mbit,50ms"]),
        (["demo", "--out", "."], ["--out .", "no demo's"]),
        (["demo", "--out", "run.toml"], ["--out run.toml is a file"]),
    ],
)
def test_options_that_cannot_be_used_are_named(fails: Fails, run_file: str, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    said = fails(*arguments, code=2)
    assert all(part in said for part in parts), said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.toml"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[run", ["not valid TOML"]),
        ("[run]\nnmae = 'x'", ["unknown key run.nmae", "known here: ", "name"]),
        ("[nodes]\nport = 1", ["unknown key nodes"]),
        ("[run.model]\ndim = 250", ["run.model.dim = 250 must divide by num_heads = 4"]),
        ("[run.model]\nnum_heads = 0", ["run.model.num_heads = 0 must be at least 1"]),
        ("[run.inner]\nlr = -1.0", ["run.inner.lr = -1.0 must be a positive number"]),
        ("[run.inner]\nlr = nan", ["run.inner.lr = nan must be a positive number"]),
        ("[run]\nstop_syncs = -1", ["run.stop_syncs = -1 must not be negative"]),
        ("[run]\nname = '../up'", ["run.name = '../up' cannot name a directory"]),
        ("[node]\nport = 70000", ["node.port = 70000 is no port"]),
        ("[node]\ntrainer_threads = 0", ["trainer_threads = 0"]),
        ("[node]\nlink = 'slow'", ["'slow'"]),
    ],
)
def test_a_run_file_that_cannot_be_used_is_refused(fails: Fails, tmp_path: Path, text: str, parts: list[str]) -> None:
    (tmp_path / "bad.toml").write_text(text)
    said = fails("node", "--run", "bad.toml", code=2)
    assert all(part in said for part in parts), said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.toml"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name = 'x'\npears = 3", ["unknown key pears"]),
        ("peers = 3", ["key name is missing"]),
        ("name = 'x'\n[run]\nstop_syncs = 2\n[[faults]]\nat_sync = 1\nkind = 'meteor'", ["'meteor'", "join, kill, leave"]),
        ("name = 'x'\n[run]\nstop_syncs = 2\n[[faults]]\nat_sync = 1", ["faults[0].kind is missing"]),
        ("name = 'x'\n[run]\nstop_syncs = 2\n[[faults]]\nat_sync = 'soon'\nkind = 'kill'", ["faults[0].at_sync = 'soon'"]),
        ("name = 'x'", ["stop_syncs = 0 would never end"]),
    ],
)
def test_a_scenario_that_cannot_be_played_is_refused(fails: Fails, tmp_path: Path, text: str, parts: list[str]) -> None:
    (tmp_path / "bad.toml").write_text(text)
    said = fails("sim", "bad.toml", code=2)
    assert "bad.toml" in said and all(part in said for part in parts), said


@pytest.mark.parametrize("command", ["node", "status"])
@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda good: "decentra2" + good[9:], "does not begin with 'decentra1'"),
        (lambda good: good[:40] + ("a" if good[40] != "a" else "b") + good[41:], "checksum does not match"),
        (lambda good: good[:-20], "cut off"),
        (lambda good: good[:50] + "!" + good[51:], "'!' at position 51"),
        (lambda good: "", "does not begin with"),
    ],
)
def test_a_wrong_join_string_is_refused_with_what_is_wrong(
    fails: Fails, tmp_path: Path, command: str, spoil: Callable[[str], str], part: str
) -> None:
    string = spoil(join_string("127.0.0.1:4000"))
    if command == "node" and not string:
        string = " "
    said = fails(*(["node", "--join", string] if command == "node" else ["status", string]), code=2)
    assert part in said and "copy it again" in said, said
    assert list(tmp_path.iterdir()) == []


def test_a_real_process_says_the_same_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "decentra.cli.main", "node", "--run", "none.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "decentra: cannot read config none.toml: No such file or directory; give the path of a TOML file\n"
    assert list(tmp_path.iterdir()) == []


# -- what this machine cannot do ----------------------------------------------------------------------------------------


def test_a_taken_port_is_named_before_anything_is_made(fails: Fails, run_file: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = fails("node", "--run", run_file, "--port", str(port), code=1)
        assert f"127.0.0.1:{port}" in said and "another --port" in said
        said = fails("bootstrap", "--port", str(port), code=1)
        assert f"127.0.0.1:{port}" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.toml"]


def test_an_address_of_another_machine_cannot_be_listened_on(fails: Fails, run_file: str) -> None:
    assert "192.0.2.7:0" in fails("node", "--run", run_file, "--listen", "192.0.2.7", code=1)


def test_a_dead_bootstrap_address_is_named_before_anything_is_made(fails: Fails, run_file: str, tmp_path: Path) -> None:
    address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/12D3KooWBcKzZ7hxHaRMUPXdY9oBQSJkRZDQzFQ4nqTkq9rmF8xr"
    assert address in fails("node", "--run", run_file, "--bootstrap", address, code=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.toml"]


def test_different_arithmetic_keeps_a_node_out_before_anything_is_made(
    fails: Fails, run_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decentra.ledger.golden.GOLDEN", b"\0" * 32)
    assert "golden vectors come out differently" in fails("node", "--run", run_file, code=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.toml"]


@pytest.mark.parametrize("where", ["identity.pem", "log.bin", "vote.json", "train.bin"])
def test_a_full_disk_is_named(
    fails: Fails, run_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, data_folder: Path
) -> None:
    sockets = Path(tempfile.mkdtemp(prefix="d-"))  # short: a socket's path may have about a hundred bytes
    monkeypatch.setattr("tempfile.tempdir", str(sockets))
    monkeypatch.setattr("decentra.build.text_folder", lambda config, cache: (data_folder, True))
    real_open, real_write, full = os.open, os.write, set[int]()

    def opened(path: Any, *rest: Any, **named: Any) -> int:
        handle = real_open(path, *rest, **named)
        full.discard(handle)
        if Path(os.fsdecode(path)).name.startswith(where):
            full.add(handle)
        return handle

    def write(handle: int, data: Any) -> int:
        if handle in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(handle, data)

    if where == "identity.pem":
        def refuse(path: Path, data: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        monkeypatch.setattr("decentra.identity.keys.write_secret", refuse)
    else:
        monkeypatch.setattr(ledger_files.os, "open", opened)
        monkeypatch.setattr(ledger_files.os, "write", write)
    said = fails("node", "--run", run_file, "--state", "full", "--json", code=1)
    assert where in said and ("disk is full" in said or "No space left" in said) and "free some space" in said
    sockets.rmdir()
    assert (tmp_path / "full").exists() == (where == "log.bin")


def test_a_state_directory_below_a_file_is_named(fails: Fails, run_file: str) -> None:
    assert "run.toml/x" in fails("node", "--run", run_file, "--state", "run.toml/x", code=1)


# -- who does not answer, who refuses -----------------------------------------------------------------------------------


def test_a_join_string_that_nobody_is_behind_names_the_addresses(fails: Fails, tmp_path: Path) -> None:
    port = free_port()
    dht = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/12D3KooWBcKzZ7hxHaRMUPXdY9oBQSJkRZDQzFQ4nqTkq9rmF8xr"
    string = join_string(f"127.0.0.1:{port}", dht=(dht,))
    assert f"nobody answers at 127.0.0.1:{port}" in fails("node", "--join", string, code=1)
    assert f"nobody answers at 127.0.0.1:{port}" in fails("status", string, code=1)
    assert list(tmp_path.iterdir()) == []


def test_an_entrance_that_takes_calls_and_says_nothing_is_not_waited_for_long(fails: Fails, run_file: str, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"nobody answers at {place}" in fails("node", "--join", join_string(place), "--state", "deep/er", code=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.toml"]


class Background:
    """A node that serves on a loop of its own."""

    def __init__(self, identity: Identity, handler: Any, token: bytes, run_id: bytes = b"r" * 16) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        tls = tls_material(identity, run_id, token)
        self.transport = self.do(GrpcTransport.start(identity.peer, handler, tls, host="127.0.0.1", port=0))
        self.endpoint = f"127.0.0.1:{self.transport.port}"

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.do(self.transport.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture()
def serving(small_swarm: Cluster) -> Iterator[Background]:
    """A member of a swarm that has ended, serving its open run over gRPC."""
    node = small_swarm.nodes[0]
    assert small_swarm.run is not None and node.member is not None
    server = Server()
    server.member = node.member
    background = Background(node.identity, server, b"", small_swarm.run.run_id)
    yield background
    background.close()


def test_a_wrong_token_is_refused_by_name(fails: Fails, tmp_path: Path) -> None:
    background = Background(Identity.create(), None, b"t" * 16)
    try:
        string = join_string(background.endpoint, token=b"x" * 16)
        assert "the invite token or run is not its own" in fails("node", "--join", string, code=1)
        assert "the invite token or run is not its own" in fails("status", string, code=1)
    finally:
        background.close()
    assert not list(tmp_path.rglob("identity.pem"))


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("PROTOCOL_VERSION", 99, f"protocol version 99 is not {PROTOCOL_VERSION}; install the same decentra"),
        ("GOLDEN", b"\1" * 32, "golden vectors come out differently on this machine"),
    ],
)
def test_what_the_swarm_refuses_is_said_in_its_words(
    fails: Fails, serving: Background, small_swarm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any,
    part: str,
) -> None:  # fmt: skip
    assert small_swarm.run is not None
    monkeypatch.setattr(catchup, name, value)
    string = join_string(serving.endpoint, token=b"", run_id=small_swarm.run.run_id)
    said = fails("node", "--join", string, code=1)
    assert "the swarm refused this node: " in said and part in said
    assert not list(tmp_path.rglob("identity.pem"))


def test_a_differing_run_setting_and_a_wrong_token_are_named_in_the_hello(small_swarm: Cluster) -> None:
    import dataclasses

    run = small_swarm.run
    assert run is not None
    stranger = Identity.create()

    async def hello(**changes: Any) -> str:
        transport = MemoryTransport(small_swarm.network, stranger.peer, Server())
        try:
            member = small_swarm.nodes[0].identity.peer
            transport.connect(Contact(member, ("memory",)))
            given = {"protocol_version": PROTOCOL_VERSION, "golden_digest": run.golden_digest, **changes}
            request = rounds_pb2.Request(hello=rounds_pb2.Hello(**given))
            with pytest.raises(PeerFault) as refused:
                await catchup.call(transport, run.run_id, member, request)
            return refused.value.reason
        finally:
            await transport.close()
            small_swarm.network.remove(stranger.peer)

    other = dataclasses.replace(run.config, seed=7, inner=dataclasses.replace(run.config.inner, lr=1.0))
    assert "run.seed" in (said := asyncio.run(hello(run_config=run_bytes(other)))) and "run.inner.lr" in said
    assert "manifest" in asyncio.run(hello(run_config=b"{"))
    assert "record" in asyncio.run(hello(record=IdentitySigner(Identity.create()).sign(b"decentra/record", b""))).lower()


def test_a_status_of_peers_that_tell_nothing_fails(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        def __init__(self, *_: Any) -> None: ...
        async def __aenter__(self) -> Nobody:
            return self

        async def __aexit__(self, *_: object) -> None: ...
        async def peers(self) -> list[str]:
            return ["x"]

        async def statuses(self) -> list[Any]:
            return []

    monkeypatch.setattr("decentra.node.status.Watcher", Nobody)
    assert "none tells its status" in fails("status", join_string("127.0.0.1:1"), code=1)


def test_without_p2pd_a_node_says_so_and_goes_on_by_endpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from decentra import build
    from decentra.config import NodeConfig
    from decentra.directory.static import StaticDirectory
    from decentra.identity.signing import MemoVerifier
    from decentra.node.wiring import Door

    async def missing() -> Any:
        raise SetupError("the DHT is not available here: hivemind cannot be imported (no p2pd for this platform)")

    monkeypatch.setattr(hivemind_dht, "_load", missing)
    door, lines = Door(b"r" * 16, b"f" * 32, b"t" * 16), []

    async def enter(door: Door) -> Any:
        transport = await build.transport(tmp_path, door, NodeConfig())
        try:
            return await build.directory(door, NodeConfig(), transport, MemoVerifier(), tmp_path, lines.append, True)
        finally:
            await transport.close()

    assert isinstance(asyncio.run(enter(door)), StaticDirectory)
    assert len(lines) == 1 and "no p2pd for this platform" in lines[0] and "endpoints" in lines[0]


# -- state directories --------------------------------------------------------------------------------------------------


@pytest.fixture()
def state(tmp_path: Path, small_swarm: Cluster) -> Path:
    """The state directory of a member, as a daemon leaves it."""
    node, run = small_swarm.nodes[0], small_swarm.run
    assert run is not None
    folder = tmp_path / "kept"
    for name, data in node.ports.store.files._files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    node.identity.save(folder)
    door = f'{{"run_id": "{run.run_id.hex()}", "founder_key": "{"00" * 32}", "token": "", "dht": [], "entrances": []}}'
    (folder / "door.json").write_text(door)
    return folder


def come_back(state: Path) -> list[str]:
    return ["node", "--state", str(state)]


def test_a_state_directory_in_use_is_named(fails: Fails, state: Path) -> None:
    held = ledger_files.DiskFiles(state)
    try:
        for arguments in (come_back(state), ["replay", str(state)]):
            said = fails(*arguments, code=1)
            assert f"{state} is in use by another process" in said and "another --state" in said
    finally:
        held.close()


def test_a_state_directory_of_another_run_is_refused_and_left_as_it_was(fails: Fails, state: Path, run_file: str) -> None:
    before = (state / "door.json").read_bytes()
    said = fails("node", "--join", join_string("127.0.0.1:4000"), "--state", str(state), code=2)
    assert str(state) in said and "belongs to run" in said and "another --state" in said
    said = fails("node", "--run", run_file, "--state", str(state), code=2)
    assert str(state) in said and "other settings" in said and "run.eval_samples" in said and "run.model.num_layers" not in said
    assert (state / "door.json").read_bytes() == before and (state / "manifest.bin").exists()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("log.bin", "log.bin is damaged at byte"),
        ("vote.json", "vote.json is damaged"),
        ("offer.json", "offer.json is damaged"),
        ("door.json", "door.json is damaged"),
        ("manifest.bin", "manifest.bin is damaged"),
        ("identity.pem", "identity.pem is damaged"),
        ("snapshots/*/header.json", "is damaged (header or link)"),
        ("snapshots/*/anchor-0", "is damaged (anchor)"),
    ],
)
def test_damage_in_a_state_directory_is_named_with_its_place(fails: Fails, state: Path, name: str, part: str) -> None:
    (state / "door.json").write_text((state / "door.json").read_text())
    paths = sorted(state.glob(name))
    assert paths, f"{name} is not part of a state"
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    said = fails(*come_back(state), code=1)
    assert part in said and str(state) in said


def test_replay_names_the_entries_it_can_give(fails: Fails, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "vote.json").write_bytes((state / "vote.json").read_bytes())
    assert main(["replay", str(state)]) == 0
    last = int(capsys.readouterr().out.split()[1].rstrip(","))
    kept = sorted(int(p.name) for p in (state / "snapshots").iterdir())
    assert f"--to {last + 1} lies outside" in (said := fails("replay", str(state), "--to", str(last + 1), code=2))
    assert f"give {kept[0]} to {last}" in said
    if kept[0] > 0:
        assert f"--to {kept[0] - 1} lies outside" in fails("replay", str(state), "--to", str(kept[0] - 1), code=2)
    assert "--to -3 is no entry" in fails("replay", str(state), "--to", "-3", code=2)


