"""The sections of a config file, with their defaults. Frozen; `rules` says which values hold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

CODECS = ("fp32", "bf16", "int8", "int4", "fp4", "topk")
"""Names of codecs, as they travel; build.py makes one of each."""

SPARSE_CODECS = ("topk",)
"""Those that send few elements: for contributions alone."""

INNER_OPTIMIZERS = ("adamw", "muon")
OUTER_OPTIMIZERS = ("nesterov", "sgd", "average")
SCHEDULES = ("cosine", "wsd")
MERGES = ("mix", "eager")
BAD_STEP_POLICIES = ("skip", "drop", "stop")
SYNCS = ("steps", "time")
WEIGHTS = ("tokens", "normalised")
ROPE_SCALINGS = ("", "linear", "llama3")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The Llama to train. Sizes in elements; `ffn_dim` 0 means round_up(8/3 dim, 64), `vocab_size` 0 that of the run's tokenizer.

    max_context: positions that the shape is made for, 0 for those it is trained on.
    rope_scaling: one of ROPE_SCALINGS; linear divides all rotary frequencies by rope_factor, llama3 (Llama 3.1) only those of
    wavelengths beyond rope_original_context / rope_low_freq_factor, none below rope_original_context / rope_high_freq_factor.
    """

    dim: int = 256
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 4
    ffn_dim: int = 0
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: str = ""
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_context: int = 8192
    tied: bool = False
    vocab_size: int = 0
    max_context: int = 0

    @property
    def hidden_dim(self) -> int:
        """Of the feed-forward network."""
        return self.ffn_dim or -(-8 * self.dim // (3 * 64)) * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The text and its tokens. `source` python: the standard library and language reference of this Python."""

    source: str = "python"
    vocab_size: int = 2048
    context: int = 128
    heldout_share: float = 0.02
    max_text_bytes: int = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerConfig:
    """The inner optimizer of every replica, one of INNER_OPTIMIZERS. All tokens are the swarm's, committed.

    optimizer: adamw, or muon for hidden matrices and adamw for all else, at the same lr. mask_documents: a token sees its own document
    alone, not what stands before it in the same sample.
    schedule: of lr after the warm-up, one of SCHEDULES; down to min_lr_share of it over decay_tokens, 0 for never. cosine falls
    from the warm-up on, wsd stays until decay_start_tokens and then falls as 1 - sqrt.
    """

    optimizer: str = "adamw"
    lr: float = 3e-3
    min_lr_share: float = 0.1
    warmup_tokens: int = 50_000
    schedule: str = "cosine"
    decay_start_tokens: int = 0
    decay_tokens: int = 0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    muon_momentum: float = 0.95
    weight_decay: float = 0.1
    clip: float = 1.0
    batch_samples: int = 4
    mask_documents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterConfig:
    """The outer step on the averaged pseudo-gradient, every H inner steps (DiLoCo, arXiv 2311.08105).

    optimizer: one of OUTER_OPTIMIZERS; nesterov, sgd without momentum, or average, which is sgd at rate 1 (FedAvg).
    fragments: P, parts of the model that are synced in turn, one every H / P steps (Streaming DiLoCo, arXiv 2501.18512).
    overlap_steps: tau, inner steps that a trainer goes on for while the round runs, before it takes the outcome over.
    alpha: the share of its own value that a fragment keeps when it does; 0 discards what those steps did to it.
    merge: one of MERGES; mix by alpha, or eager: a replica takes its own contribution over at once and those of the others one
    outer step later (arXiv 2502.12996). The round then overlaps with the whole next slot, and neither tau nor alpha is used.
    sync: one of SYNCS; after inner_steps, or when budget_s seconds of a slot are over, however many steps a machine takes in them.
    budget_s is of a slot, H / P; inner_steps is then what is planned: for the first slot, and for the share of one that overlaps.
    weights: one of WEIGHTS; of a contribution in the average: tokens, or those with the pseudo-gradient scaled to the mean number of
    steps (normalised). "" is normalised where sync is time, and each machine takes as many steps as it can, else tokens.
    """

    inner_steps: int = 25
    optimizer: str = "nesterov"
    lr: float = 0.7
    momentum: float = 0.9
    fragments: int = 1
    overlap_steps: int = 0
    alpha: float = 0.5
    merge: str = "mix"
    sync: str = "steps"
    budget_s: float = 0.0
    weights: str = ""

    @property
    def slot_steps(self) -> int:
        """Inner steps between two syncs."""
        return self.inner_steps // self.fragments

    @property
    def ahead_steps(self) -> int:
        """Inner steps of a slot that may be taken before the last sync is decided."""
        return self.slot_steps if self.merge == "eager" else self.overlap_steps

    @property
    def normalises(self) -> bool:
        """Whether contributions are scaled to the mean number of steps."""
        return self.weights == "normalised" or (not self.weights and self.sync == "time")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """How pseudo-gradients travel: `up` from contributor to owner, `down` from owner to all; one of CODECS, `down` not of
    SPARSE_CODECS, which want feedback near 0.95.

    aggregate: reduce (owners average their parts and encode once more) or gather (contributions themselves go to all).
    feedback: decay of the error-feedback residual, what encoding lost and the next contribution adds; 0 keeps none.
    """

    up: str = "int8"
    down: str = "int8"
    aggregate: str = "reduce"
    feedback: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What the swarm agrees on. `start_members` holds back sync 0; `stop_syncs` or `stop_tokens` 0 means no end.

    snapshot_every: entries between two snapshots, which all members take at the same r.
    """

    name: str = "run"
    seed: int = 0
    start_members: int = 1
    stop_syncs: int = 0
    stop_tokens: int = 0
    eval_samples: int = 64
    snapshot_every: int = 8
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)

    @property
    def llama(self) -> ModelConfig:
        """The model with the vocabulary of the run's tokenizer."""
        return dataclasses.replace(self.model, vocab_size=self.data.vocab_size)

    @property
    def slot_samples(self) -> int:
        """Samples that a member trains between two syncs."""
        return self.outer.slot_steps * self.inner.batch_samples

    @property
    def planned_tokens(self) -> int:
        """Tokens that the members at the start train together between two syncs."""
        return self.start_members * self.slot_samples * self.data.context

    @property
    def first_lease_samples(self) -> int:
        """Samples that a member is leased before it has claimed any: a slot's, and the next one's where that begins ahead."""
        return self.slot_samples * (2 if self.outer.ahead_steps else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What one machine decides. Port 0 means any free port; `link` RATE,DELAY shapes in user space ("" = not).

    reachable: whether others can dial this node. auto has members dial it back and believes them; yes is not proved; no
    listens to nobody and only dials out.
    device: of the trainer, as torch names it (cpu, cuda, cuda:1, mps); auto takes CUDA where torch sees it, else the CPU.
    daemon_threads: CPU threads for encoding, reducing and applying. micro_batch: samples of one forward pass, 0 for all.
    on_bad_step: of a step whose loss or gradients are not finite, or lie 6 standard deviations above the last 128 steps: skip leaves
    it out, drop offers nothing of its slot, stop lets the node leave.
    keep_snapshots: snapshots kept, with the entries and blobs since the oldest of them, 0 for all. A peer that slept for D
    entries can replay them here if (keep_snapshots - 1) * snapshot_every is at least D.
    """

    listen: str = "127.0.0.1"
    port: int = 0
    dht_port: int = 0
    announce: str = ""
    reachable: str = "auto"
    dht: bool = True
    trainer_threads: int = 1
    micro_batch: int = 0
    on_bad_step: str = "skip"
    daemon_threads: int = 1
    device: str = "auto"
    link: str = ""
    keep_snapshots: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole config file."""

    run: RunConfig = field(default_factory=RunConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
