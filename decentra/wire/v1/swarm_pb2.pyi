from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Signed(_message.Message):
    __slots__ = ("payload", "public_key", "signature")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    public_key: bytes
    signature: bytes
    def __init__(self, payload: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("run_id", "peer", "sequence", "endpoints", "up_bytes_per_s", "down_bytes_per_s", "server_certificate")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    UP_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    DOWN_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    SERVER_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    peer: str
    sequence: int
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    up_bytes_per_s: int
    down_bytes_per_s: int
    server_certificate: bytes
    def __init__(self, run_id: _Optional[bytes] = ..., peer: _Optional[str] = ..., sequence: _Optional[int] = ..., endpoints: _Optional[_Iterable[str]] = ..., up_bytes_per_s: _Optional[int] = ..., down_bytes_per_s: _Optional[int] = ..., server_certificate: _Optional[bytes] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "shape", "offset")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    offset: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., offset: _Optional[int] = ...) -> None: ...

class ObjectRef(_message.Message):
    __slots__ = ("name", "digest", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: bytes
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[bytes] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("protocol_version", "run_config", "layout", "files", "founder_key", "token_digest", "operator_keys", "initial_header_digest", "golden_digest", "num_samples", "nonce")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_CONFIG_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    FOUNDER_KEY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_KEYS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_HEADER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    run_config: bytes
    layout: _containers.RepeatedCompositeFieldContainer[Tensor]
    files: _containers.RepeatedCompositeFieldContainer[ObjectRef]
    founder_key: bytes
    token_digest: bytes
    operator_keys: _containers.RepeatedScalarFieldContainer[bytes]
    initial_header_digest: bytes
    golden_digest: bytes
    num_samples: int
    nonce: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., run_config: _Optional[bytes] = ..., layout: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., files: _Optional[_Iterable[_Union[ObjectRef, _Mapping]]] = ..., founder_key: _Optional[bytes] = ..., token_digest: _Optional[bytes] = ..., operator_keys: _Optional[_Iterable[bytes]] = ..., initial_header_digest: _Optional[bytes] = ..., golden_digest: _Optional[bytes] = ..., num_samples: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class Interval(_message.Message):
    __slots__ = ("start", "stop")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    start: int
    stop: int
    def __init__(self, start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("peer", "incarnation", "dialable", "announced_samples", "up_bytes_per_s", "down_bytes_per_s")
    PEER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DIALABLE_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCED_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    UP_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    DOWN_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    peer: str
    incarnation: int
    dialable: bool
    announced_samples: int
    up_bytes_per_s: int
    down_bytes_per_s: int
    def __init__(self, peer: _Optional[str] = ..., incarnation: _Optional[int] = ..., dialable: _Optional[bool] = ..., announced_samples: _Optional[int] = ..., up_bytes_per_s: _Optional[int] = ..., down_bytes_per_s: _Optional[int] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("peer", "intervals")
    PEER_FIELD_NUMBER: _ClassVar[int]
    INTERVALS_FIELD_NUMBER: _ClassVar[int]
    peer: str
    intervals: _containers.RepeatedCompositeFieldContainer[Interval]
    def __init__(self, peer: _Optional[str] = ..., intervals: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("run_id", "lineage", "sync", "fragment", "sender", "incarnation", "base_sync", "weight_tokens", "num_steps", "claim", "codec", "num_chunks", "blocks_digest", "norm")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    FRAGMENT_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    BASE_SYNC_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    NUM_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    lineage: bytes
    sync: int
    fragment: int
    sender: str
    incarnation: int
    base_sync: int
    weight_tokens: int
    num_steps: int
    claim: _containers.RepeatedCompositeFieldContainer[Interval]
    codec: str
    num_chunks: int
    blocks_digest: bytes
    norm: float
    def __init__(self, run_id: _Optional[bytes] = ..., lineage: _Optional[bytes] = ..., sync: _Optional[int] = ..., fragment: _Optional[int] = ..., sender: _Optional[str] = ..., incarnation: _Optional[int] = ..., base_sync: _Optional[int] = ..., weight_tokens: _Optional[int] = ..., num_steps: _Optional[int] = ..., claim: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ..., codec: _Optional[str] = ..., num_chunks: _Optional[int] = ..., blocks_digest: _Optional[bytes] = ..., norm: _Optional[float] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("first_block", "num_blocks", "owner")
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    first_block: int
    num_blocks: int
    owner: str
    def __init__(self, first_block: _Optional[int] = ..., num_blocks: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class Term(_message.Message):
    __slots__ = ("blob", "coefficient_bits")
    BLOB_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENT_BITS_FIELD_NUMBER: _ClassVar[int]
    blob: bytes
    coefficient_bits: int
    def __init__(self, blob: _Optional[bytes] = ..., coefficient_bits: _Optional[int] = ...) -> None: ...

class Sum(_message.Message):
    __slots__ = ("first_block", "num_blocks", "codec", "terms")
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    first_block: int
    num_blocks: int
    codec: str
    terms: _containers.RepeatedCompositeFieldContainer[Term]
    def __init__(self, first_block: _Optional[int] = ..., num_blocks: _Optional[int] = ..., codec: _Optional[str] = ..., terms: _Optional[_Iterable[_Union[Term, _Mapping]]] = ...) -> None: ...

class Counted(_message.Message):
    __slots__ = ("sender", "incarnation", "root", "weight_tokens", "num_steps", "claim", "base_sync")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    BASE_SYNC_FIELD_NUMBER: _ClassVar[int]
    sender: str
    incarnation: int
    root: bytes
    weight_tokens: int
    num_steps: int
    claim: _containers.RepeatedCompositeFieldContainer[Interval]
    base_sync: int
    def __init__(self, sender: _Optional[str] = ..., incarnation: _Optional[int] = ..., root: _Optional[bytes] = ..., weight_tokens: _Optional[int] = ..., num_steps: _Optional[int] = ..., claim: _Optional[_Iterable[_Union[Interval, _Mapping]]] = ..., base_sync: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("run_id", "lineage", "r", "state_hash", "sync", "fragment", "counted", "sums", "heard", "admitted", "removed", "returned", "granted", "next_parts", "settings", "wishes")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    FRAGMENT_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    NEXT_PARTS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    WISHES_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    lineage: bytes
    r: int
    state_hash: bytes
    sync: int
    fragment: int
    counted: _containers.RepeatedCompositeFieldContainer[Counted]
    sums: _containers.RepeatedCompositeFieldContainer[Sum]
    heard: _containers.RepeatedScalarFieldContainer[str]
    admitted: _containers.RepeatedCompositeFieldContainer[Member]
    removed: _containers.RepeatedScalarFieldContainer[str]
    returned: _containers.RepeatedCompositeFieldContainer[Lease]
    granted: _containers.RepeatedCompositeFieldContainer[Lease]
    next_parts: _containers.RepeatedCompositeFieldContainer[Part]
    settings: bytes
    wishes: _containers.RepeatedCompositeFieldContainer[Signed]
    def __init__(self, run_id: _Optional[bytes] = ..., lineage: _Optional[bytes] = ..., r: _Optional[int] = ..., state_hash: _Optional[bytes] = ..., sync: _Optional[int] = ..., fragment: _Optional[int] = ..., counted: _Optional[_Iterable[_Union[Counted, _Mapping]]] = ..., sums: _Optional[_Iterable[_Union[Sum, _Mapping]]] = ..., heard: _Optional[_Iterable[str]] = ..., admitted: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., returned: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., granted: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., next_parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., settings: _Optional[bytes] = ..., wishes: _Optional[_Iterable[_Union[Signed, _Mapping]]] = ...) -> None: ...

class Wish(_message.Message):
    __slots__ = ("run_id", "lineage", "settings", "peer", "incarnation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    lineage: bytes
    settings: bytes
    peer: str
    incarnation: int
    def __init__(self, run_id: _Optional[bytes] = ..., lineage: _Optional[bytes] = ..., settings: _Optional[bytes] = ..., peer: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Vote(_message.Message):
    __slots__ = ("run_id", "lineage", "r", "ballot", "entry_digest", "voter", "incarnation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    BALLOT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    lineage: bytes
    r: int
    ballot: int
    entry_digest: bytes
    voter: str
    incarnation: int
    def __init__(self, run_id: _Optional[bytes] = ..., lineage: _Optional[bytes] = ..., r: _Optional[int] = ..., ballot: _Optional[int] = ..., entry_digest: _Optional[bytes] = ..., voter: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("r", "ballot", "entry_digest", "votes")
    R_FIELD_NUMBER: _ClassVar[int]
    BALLOT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VOTES_FIELD_NUMBER: _ClassVar[int]
    r: int
    ballot: int
    entry_digest: bytes
    votes: _containers.RepeatedCompositeFieldContainer[Signed]
    def __init__(self, r: _Optional[int] = ..., ballot: _Optional[int] = ..., entry_digest: _Optional[bytes] = ..., votes: _Optional[_Iterable[_Union[Signed, _Mapping]]] = ...) -> None: ...

class CertifiedEntry(_message.Message):
    __slots__ = ("entry", "certificate", "forced")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    entry: bytes
    certificate: bytes
    forced: Signed
    def __init__(self, entry: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., forced: _Optional[_Union[Signed, _Mapping]] = ...) -> None: ...

class ForcedView(_message.Message):
    __slots__ = ("run_id", "lineage", "r", "state_hash", "entry_digest")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    R_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    ENTRY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    lineage: bytes
    r: int
    state_hash: bytes
    entry_digest: bytes
    def __init__(self, run_id: _Optional[bytes] = ..., lineage: _Optional[bytes] = ..., r: _Optional[int] = ..., state_hash: _Optional[bytes] = ..., entry_digest: _Optional[bytes] = ...) -> None: ...
