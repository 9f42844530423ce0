"""A ledger replays to the same hashes, and damage to any of its bytes is noticed, not applied."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from decentra.config import RunConfig
from decentra.errors import StateError
from decentra.ledger.files import MemoryFiles
from decentra.ledger.store import Store
from decentra.rounds import records
from decentra.rounds.catchup import restore
from decentra.rounds.founding import empty_tensors
from decentra.sim.cluster import Cluster
from decentra.sim.scenario import Scenario
from decentra.wire.v1 import swarm_pb2

Play = Callable[[Scenario], Cluster]


def no_incarnation() -> int:
    raise AssertionError("a store with a vote keeps its incarnation")


def files_of(cluster: Cluster, number: int = 0) -> MemoryFiles:
    """A copy of a node's disk."""
    kept, copy = cluster.nodes[number].ports.store.files, MemoryFiles()
    assert isinstance(kept, MemoryFiles)
    copy._files = dict(kept._files)
    return copy


def flip(files: MemoryFiles, name: str, at: int) -> None:
    data = bytearray(files.read(name) or b"")
    data[at] ^= 0x11
    files.write(name, bytes(data))


def replayed(cluster: Cluster, files: MemoryFiles, to_r: int | None = None, from_r: int | None = None) -> bytes:
    """Open the disk as after a restart and replay: the hash reached."""
    assert cluster.run is not None
    store = Store.open(files, no_incarnation)
    return restore(store, cluster.run, empty_tensors(cluster.run.layout), to_r, from_r).state_hash


def hashes(cluster: Cluster) -> dict[int, bytes]:
    """h_r by r, as the certified entries of the swarm name them, and the last one as its members hold it."""
    found = {}
    for r, certified in cluster.nodes[0].ports.store.entries(0, 10**6):
        found[r] = records.parse_entry(swarm_pb2.CertifiedEntry.FromString(certified).entry).state_hash
    member = cluster.nodes[0].member
    assert member is not None
    return found | {member.state.r: member.hash}


def test_every_state_since_the_oldest_snapshot_kept_comes_back_with_its_hash(small_swarm: Cluster) -> None:
    known = hashes(small_swarm)
    for node in small_swarm.nodes:
        kept = node.ports.store.snapshots()
        assert len(kept) == 2
        for r in range(kept[0], max(known) + 1):
            assert replayed(small_swarm, files_of(small_swarm, node.number), r, from_r=kept[0]) == known[r]
        assert replayed(small_swarm, files_of(small_swarm, node.number)) == known[max(known)]


def test_from_the_first_snapshot_on_the_founder_is_checked_by_the_manifest(play: Play, small_run: RunConfig) -> None:
    run = dataclasses.replace(small_run, start_members=1, stop_syncs=1)
    one, other = (play(Scenario(name="short", peers=1, seed=seed, run=run)) for seed in (1, 2))
    assert replayed(one, files_of(one)) == hashes(one)[max(hashes(one))]
    with pytest.raises(StateError, match="not the one the manifest names"):
        replayed(other, files_of(one))


def test_a_replay_that_the_store_does_not_reach_is_refused(small_swarm: Cluster) -> None:
    oldest = small_swarm.nodes[0].ports.store.snapshots()[0]
    with pytest.raises(StateError, match=f"no snapshot at or before entry {oldest - 1}; the oldest kept is {oldest}"):
        replayed(small_swarm, files_of(small_swarm), to_r=oldest - 1)
    last = max(hashes(small_swarm))
    with pytest.raises(StateError, match=f"the log ends at entry {last}, before {last + 5}"):
        replayed(small_swarm, files_of(small_swarm), to_r=last + 5)


@pytest.mark.parametrize("share", [0.0, 0.31, 0.77, 1.0])
def test_a_flipped_byte_of_any_blob_stops_the_replay(small_swarm: Cluster, share: float) -> None:
    oldest = small_swarm.nodes[0].ports.store.snapshots()[0]
    blobs = files_of(small_swarm).names("blobs")
    assert len(blobs) >= 3
    for name in blobs:
        files = files_of(small_swarm)
        flip(files, name, int(share * (len(files.read(name) or b"") - 1)))
        with pytest.raises(StateError, match=r"blob .* is damaged on disk"):
            replayed(small_swarm, files, from_r=oldest)


@pytest.mark.parametrize("file", ["header.json", "link.json", "anchor-0", "momentum-0"])
def test_a_flipped_byte_of_a_snapshot_stops_the_replay(small_swarm: Cluster, file: str) -> None:
    newest = small_swarm.nodes[0].ports.store.snapshots()[-1]
    name = f"snapshots/{newest}/{file}"
    size = len(files_of(small_swarm).read(name) or b"")
    for at in {0, 1, size // 3, size // 2, size - 2, size - 1} | set(range(7, min(size, 2000), 41)):
        if file.endswith("-0") and at % 5:
            continue
        files = files_of(small_swarm)
        flip(files, name, at)
        with pytest.raises(StateError, match=f"snapshot {newest} is damaged"):
            replayed(small_swarm, files)


@pytest.mark.parametrize("file", ["header.json", "anchor-0", "momentum-0"])
def test_a_snapshot_cut_short_or_without_a_file_stops_the_replay(small_swarm: Cluster, file: str) -> None:
    newest = small_swarm.nodes[0].ports.store.snapshots()[-1]
    name = f"snapshots/{newest}/{file}"
    for size in (0, 1, 4095, 4096):
        files = files_of(small_swarm)
        data = files.read(name) or b""
        files.write(name, data[: min(size, len(data) - 1)])
        with pytest.raises(StateError, match=f"snapshot {newest} is"):
            replayed(small_swarm, files)
    files = files_of(small_swarm)
    files.remove(name)
    with pytest.raises(StateError, match=f"snapshot {newest} is"):
        replayed(small_swarm, files)


def record_starts(files: MemoryFiles) -> list[int]:
    """Where each record of the log begins; the end of the log last."""
    store, starts, at = Store.open(files, no_incarnation), [], 0
    raw = files.read("log.bin") or b""
    overhead = (len(raw) - sum(len(data) for _, data in store.entries(0, 10**6))) // len(store.entries(0, 10**6))
    for _, data in store.entries(0, 10**6):
        starts.append(at)
        at += overhead + len(data)
    assert at == len(raw)
    return [*starts, at]


def test_a_flipped_byte_anywhere_in_the_log_is_noticed_when_it_is_opened(small_swarm: Cluster) -> None:
    starts = record_starts(files_of(small_swarm))
    for record, (start, stop) in enumerate(itertools.pairwise(starts)):
        for at in [*range(start, start + 30), *range(start + 30, stop, 97), stop - 1]:
            files = files_of(small_swarm)
            flip(files, "log.bin", at)
            with pytest.raises(StateError, match=rf"log.bin is damaged at byte {start} "):
                replayed(small_swarm, files)
            assert files.read("log.bin") != b"", f"record {record} was thrown away"


def test_a_torn_log_tail_is_dropped_and_the_log_goes_on(small_swarm: Cluster) -> None:
    starts, known = record_starts(files_of(small_swarm)), hashes(small_swarm)
    last = max(known) - 1
    raw = files_of(small_swarm).read("log.bin") or b""
    certified = small_swarm.nodes[0].ports.store.entries(last, 1)[0][1]
    for size in (1, 8, 12, 13, 20, 27, 28, 29, 100, len(raw) - starts[-2] - 1):
        files = files_of(small_swarm)
        files.write("log.bin", raw[: starts[-2] + size])
        assert replayed(small_swarm, files) == known[last]
        assert files.read("log.bin") == raw[: starts[-2]]
        Store.open(files, no_incarnation).append(last, certified)
        assert files.read("log.bin") == raw
        assert replayed(small_swarm, files) == known[last + 1]


def test_an_entry_of_another_history_does_not_follow(small_swarm: Cluster) -> None:
    files, last = files_of(small_swarm), max(hashes(small_swarm)) - 1
    store = Store.open(files, no_incarnation)
    message = swarm_pb2.CertifiedEntry.FromString(store.entries(last, 1)[0][1])
    entry = records.parse_entry(message.entry)
    message.entry = records.entry_bytes(dataclasses.replace(entry, r=last + 1, state_hash=b"\1" * 32))
    store.append(last + 1, message.SerializeToString())
    with pytest.raises(StateError, match=f"entry {last + 1} stands on 010101"):
        replayed(small_swarm, files)
