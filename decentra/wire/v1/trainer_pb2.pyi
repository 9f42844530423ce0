from decentra.wire.v1 import swarm_pb2 as _swarm_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("rank", "pid")
    RANK_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    rank: int
    pid: int
    def __init__(self, rank: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class AttachReply(_message.Message):
    __slots__ = ("run_config", "layout", "num_elements", "data_dir", "num_threads", "micro_batch", "device", "on_bad_step")
    RUN_CONFIG_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    NUM_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    NUM_THREADS_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ON_BAD_STEP_FIELD_NUMBER: _ClassVar[int]
    run_config: bytes
    layout: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Tensor]
    num_elements: int
    data_dir: str
    num_threads: int
    micro_batch: int
    device: str
    on_bad_step: str
    def __init__(self, run_config: _Optional[bytes] = ..., layout: _Optional[_Iterable[_Union[_swarm_pb2.Tensor, _Mapping]]] = ..., num_elements: _Optional[int] = ..., data_dir: _Optional[str] = ..., num_threads: _Optional[int] = ..., micro_batch: _Optional[int] = ..., device: _Optional[str] = ..., on_bad_step: _Optional[str] = ...) -> None: ...

class NextSlotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FinalSlotRequest(_message.Message):
    __slots__ = ("sync",)
    SYNC_FIELD_NUMBER: _ClassVar[int]
    sync: int
    def __init__(self, sync: _Optional[int] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("stop", "sync", "lease", "num_steps", "tokens_committed", "tokens_last_sync", "evaluate", "fresh", "overlap_steps", "alpha", "provisional", "first_step", "budget_s", "began_s", "ends_s", "step_s", "inner")
    STOP_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_LAST_SYNC_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_STEPS_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    PROVISIONAL_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    BEGAN_S_FIELD_NUMBER: _ClassVar[int]
    ENDS_S_FIELD_NUMBER: _ClassVar[int]
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    stop: bool
    sync: int
    lease: _containers.RepeatedCompositeFieldContainer[_swarm_pb2.Interval]
    num_steps: int
    tokens_committed: int
    tokens_last_sync: int
    evaluate: bool
    fresh: bool
    overlap_steps: int
    alpha: float
    provisional: bool
    first_step: int
    budget_s: float
    began_s: float
    ends_s: float
    step_s: float
    inner: bytes
    def __init__(self, stop: _Optional[bool] = ..., sync: _Optional[int] = ..., lease: _Optional[_Iterable[_Union[_swarm_pb2.Interval, _Mapping]]] = ..., num_steps: _Optional[int] = ..., tokens_committed: _Optional[int] = ..., tokens_last_sync: _Optional[int] = ..., evaluate: _Optional[bool] = ..., fresh: _Optional[bool] = ..., overlap_steps: _Optional[int] = ..., alpha: _Optional[float] = ..., provisional: _Optional[bool] = ..., first_step: _Optional[int] = ..., budget_s: _Optional[float] = ..., began_s: _Optional[float] = ..., ends_s: _Optional[float] = ..., step_s: _Optional[float] = ..., inner: _Optional[bytes] = ...) -> None: ...

class ProgressRequest(_message.Message):
    __slots__ = ("sync", "steps_done", "loss", "num_tokens", "compute_s", "heldout_loss")
    SYNC_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    sync: int
    steps_done: int
    loss: float
    num_tokens: int
    compute_s: float
    heldout_loss: float
    def __init__(self, sync: _Optional[int] = ..., steps_done: _Optional[int] = ..., loss: _Optional[float] = ..., num_tokens: _Optional[int] = ..., compute_s: _Optional[float] = ..., heldout_loss: _Optional[float] = ...) -> None: ...

class ProgressReply(_message.Message):
    __slots__ = ("go_on",)
    GO_ON_FIELD_NUMBER: _ClassVar[int]
    go_on: bool
    def __init__(self, go_on: _Optional[bool] = ...) -> None: ...

class SlotDone(_message.Message):
    __slots__ = ("sync", "num_steps", "num_samples", "num_tokens", "loss", "compute_s", "heldout_loss", "wait_s", "fault", "leave")
    SYNC_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    sync: int
    num_steps: int
    num_samples: int
    num_tokens: int
    loss: float
    compute_s: float
    heldout_loss: float
    wait_s: float
    fault: str
    leave: bool
    def __init__(self, sync: _Optional[int] = ..., num_steps: _Optional[int] = ..., num_samples: _Optional[int] = ..., num_tokens: _Optional[int] = ..., loss: _Optional[float] = ..., compute_s: _Optional[float] = ..., heldout_loss: _Optional[float] = ..., wait_s: _Optional[float] = ..., fault: _Optional[str] = ..., leave: _Optional[bool] = ...) -> None: ...

class ContributeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
