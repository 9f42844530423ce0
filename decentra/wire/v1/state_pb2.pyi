from decentra.wire.v1 import swarm_pb2 as _swarm_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HeadQuery(_message.Message):
    __slots__ = ("with_snapshot", "first_r", "snapshot_r")
    WITH_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_R_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_R_FIELD_NUMBER: _ClassVar[int]
    with_snapshot: bool
    first_r: int
    snapshot_r: int
    def __init__(self, with_snapshot: _Optional[bool] = ..., first_r: _Optional[int] = ..., snapshot_r: _Optional[int] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("r", "header", "previous_hash", "previous_entry_digest")
    R_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_ENTRY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    r: int
    header: bytes
    previous_hash: bytes
    previous_entry_digest: bytes
    def __init__(self, r: _Optional[int] = ..., header: _Optional[bytes] = ..., previous_hash: _Optional[bytes] = ..., previous_entry_digest: _Optional[bytes] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("r", "state_hash", "oldest_entry", "view", "snapshot", "replay_bytes", "after_snapshot_bytes", "lineage", "forced", "tokens", "incarnation", "acting")
    R_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    OLDEST_ENTRY_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    REPLAY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AFTER_SNAPSHOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ACTING_FIELD_NUMBER: _ClassVar[int]
    r: int
    state_hash: bytes
    oldest_entry: int
    view: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Member]
    snapshot: Snapshot
    replay_bytes: int
    after_snapshot_bytes: int
    lineage: bytes
    forced: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Signed]
    tokens: int
    incarnation: int
    acting: bool
    def __init__(self, r: _Optional[int] = ..., state_hash: _Optional[bytes] = ..., oldest_entry: _Optional[int] = ..., view: _Optional[_Iterable[_Union[_swarm_pb2.Member, _Mapping]]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., replay_bytes: _Optional[int] = ..., after_snapshot_bytes: _Optional[int] = ..., lineage: _Optional[bytes] = ..., forced: _Optional[_Iterable[_Union[_swarm_pb2.Signed, _Mapping]]] = ..., tokens: _Optional[int] = ..., incarnation: _Optional[int] = ..., acting: _Optional[bool] = ...) -> None: ...

class EntriesQuery(_message.Message):
    __slots__ = ("first_r", "limit")
    FIRST_R_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    first_r: int
    limit: int
    def __init__(self, first_r: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.CertifiedEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[_swarm_pb2.CertifiedEntry, _Mapping]]] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("run_id", "contribution_root", "object_digest", "first_block", "num_blocks", "relay", "digests_known")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_ROOT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    contribution_root: bytes
    object_digest: bytes
    first_block: int
    num_blocks: int
    relay: bool
    digests_known: bool
    def __init__(self, run_id: _Optional[bytes] = ..., contribution_root: _Optional[bytes] = ..., object_digest: _Optional[bytes] = ..., first_block: _Optional[int] = ..., num_blocks: _Optional[int] = ..., relay: _Optional[bool] = ..., digests_known: _Optional[bool] = ...) -> None: ...
