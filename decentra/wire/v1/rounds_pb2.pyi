from decentra.wire.v1 import swarm_pb2 as _swarm_pb2
from decentra.wire.v1 import state_pb2 as _state_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("run_id", "hello", "heartbeat", "offer", "close", "prepare", "proposal", "commit", "head", "entries", "records", "status", "probe", "lineage")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    hello: Hello
    heartbeat: Heartbeat
    offer: Offer
    close: Close
    prepare: Prepare
    proposal: Proposal
    commit: _swarm_pb2.CertifiedEntry
    head: _state_pb2.HeadQuery
    entries: _state_pb2.EntriesQuery
    records: Records
    status: StatusQuery
    probe: Probe
    lineage: bytes
    def __init__(self, run_id: _Optional[bytes] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., prepare: _Optional[_Union[Prepare, _Mapping]] = ..., proposal: _Optional[_Union[Proposal, _Mapping]] = ..., commit: _Optional[_Union[_swarm_pb2.CertifiedEntry, _Mapping]] = ..., head: _Optional[_Union[_state_pb2.HeadQuery, _Mapping]] = ..., entries: _Optional[_Union[_state_pb2.EntriesQuery, _Mapping]] = ..., records: _Optional[_Union[Records, _Mapping]] = ..., status: _Optional[_Union[StatusQuery, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ..., lineage: _Optional[bytes] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("welcome", "heartbeat", "done", "report", "promise", "accept", "head", "entries", "records", "status", "probed")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROBED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    heartbeat: HeartbeatReply
    done: Done
    report: Report
    promise: Promise
    accept: Accept
    head: _state_pb2.Head
    entries: _state_pb2.Entries
    records: Records
    status: Status
    probed: Probed
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., heartbeat: _Optional[_Union[HeartbeatReply, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., promise: _Optional[_Union[Promise, _Mapping]] = ..., accept: _Optional[_Union[Accept, _Mapping]] = ..., head: _Optional[_Union[_state_pb2.Head, _Mapping]] = ..., entries: _Optional[_Union[_state_pb2.Entries, _Mapping]] = ..., records: _Optional[_Union[Records, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., probed: _Optional[_Union[Probed, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "golden_digest", "run_config", "token", "record")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RUN_CONFIG_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    golden_digest: bytes
    run_config: bytes
    token: bytes
    record: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., golden_digest: _Optional[bytes] = ..., run_config: _Optional[bytes] = ..., token: _Optional[bytes] = ..., record: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("manifest", "records")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, manifest: _Optional[bytes] = ..., records: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("r", "attempt", "state_hash", "member", "newcomer", "leaving", "held", "steps_done", "num_steps", "offer", "sits_out", "wish")
    R_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    NEWCOMER_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    SITS_OUT_FIELD_NUMBER: _ClassVar[int]
    WISH_FIELD_NUMBER: _ClassVar[int]
    r: int
    attempt: int
    state_hash: bytes
    member: _swarm_pb2.Member
    newcomer: bool
    leaving: bool
    held: _containers.RepeatedScalarFieldContainer[bytes]
    steps_done: int
    num_steps: int
    offer: _swarm_pb2.Signed
    sits_out: bool
    wish: _swarm_pb2.Signed
    def __init__(self, r: _Optional[int] = ..., attempt: _Optional[int] = ..., state_hash: _Optional[bytes] = ..., member: _Optional[_Union[_swarm_pb2.Member, _Mapping]] = ..., newcomer: _Optional[bool] = ..., leaving: _Optional[bool] = ..., held: _Optional[_Iterable[bytes]] = ..., steps_done: _Optional[int] = ..., num_steps: _Optional[int] = ..., offer: _Optional[_Union[_swarm_pb2.Signed, _Mapping]] = ..., sits_out: _Optional[bool] = ..., wish: _Optional[_Union[_swarm_pb2.Signed, _Mapping]] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("r", "attempt", "heard", "phase", "waiting", "over", "offers", "period_s", "state_hash", "share_done")
    R_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    SHARE_DONE_FIELD_NUMBER: _ClassVar[int]
    r: int
    attempt: int
    heard: _containers.RepeatedScalarFieldContainer[str]
    phase: str
    waiting: bool
    over: bool
    offers: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Signed]
    period_s: float
    state_hash: bytes
    share_done: float
    def __init__(self, r: _Optional[int] = ..., attempt: _Optional[int] = ..., heard: _Optional[_Iterable[str]] = ..., phase: _Optional[str] = ..., waiting: _Optional[bool] = ..., over: _Optional[bool] = ..., offers: _Optional[_Iterable[_Union[_swarm_pb2.Signed, _Mapping]]] = ..., period_s: _Optional[float] = ..., state_hash: _Optional[bytes] = ..., share_done: _Optional[float] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("contribution",)
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    contribution: _swarm_pb2.Signed
    def __init__(self, contribution: _Optional[_Union[_swarm_pb2.Signed, _Mapping]] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("r", "ballot", "sync", "roots", "parts", "offers")
    R_FIELD_NUMBER: _ClassVar[int]
    BALLOT_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    r: int
    ballot: int
    sync: int
    roots: _containers.RepeatedScalarFieldContainer[bytes]
    parts: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Part]
    offers: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Signed]
    def __init__(self, r: _Optional[int] = ..., ballot: _Optional[int] = ..., sync: _Optional[int] = ..., roots: _Optional[_Iterable[bytes]] = ..., parts: _Optional[_Iterable[_Union[_swarm_pb2.Part, _Mapping]]] = ..., offers: _Optional[_Iterable[_Union[_swarm_pb2.Signed, _Mapping]]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("close_digest", "sums")
    CLOSE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    close_digest: bytes
    sums: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Sum]
    def __init__(self, close_digest: _Optional[bytes] = ..., sums: _Optional[_Iterable[_Union[_swarm_pb2.Sum, _Mapping]]] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("r", "ballot")
    R_FIELD_NUMBER: _ClassVar[int]
    BALLOT_FIELD_NUMBER: _ClassVar[int]
    r: int
    ballot: int
    def __init__(self, r: _Optional[int] = ..., ballot: _Optional[int] = ...) -> None: ...

class Promise(_message.Message):
    __slots__ = ("promised", "highest", "reason", "accepted_ballot", "accepted_entry", "offers", "held")
    PROMISED_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_BALLOT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_ENTRY_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    promised: bool
    highest: int
    reason: str
    accepted_ballot: int
    accepted_entry: bytes
    offers: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Signed]
    held: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, promised: _Optional[bool] = ..., highest: _Optional[int] = ..., reason: _Optional[str] = ..., accepted_ballot: _Optional[int] = ..., accepted_entry: _Optional[bytes] = ..., offers: _Optional[_Iterable[_Union[_swarm_pb2.Signed, _Mapping]]] = ..., held: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("r", "ballot", "entry", "holders")
    R_FIELD_NUMBER: _ClassVar[int]
    BALLOT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    r: int
    ballot: int
    entry: bytes
    holders: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, r: _Optional[int] = ..., ballot: _Optional[int] = ..., entry: _Optional[bytes] = ..., holders: _Optional[_Iterable[str]] = ...) -> None: ...

class Accept(_message.Message):
    __slots__ = ("vote", "highest", "reason")
    VOTE_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    vote: _swarm_pb2.Signed
    highest: int
    reason: str
    def __init__(self, vote: _Optional[_Union[_swarm_pb2.Signed, _Mapping]] = ..., highest: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("note", "r")
    NOTE_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    note: str
    r: int
    def __init__(self, note: _Optional[str] = ..., r: _Optional[int] = ...) -> None: ...

class Records(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, records: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StatusQuery(_message.Message):
    __slots__ = ("peer",)
    PEER_FIELD_NUMBER: _ClassVar[int]
    peer: str
    def __init__(self, peer: _Optional[str] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: bytes
    def __init__(self, record: _Optional[bytes] = ...) -> None: ...

class Probed(_message.Message):
    __slots__ = ("reached", "reason")
    REACHED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    reached: bool
    reason: str
    def __init__(self, reached: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...
