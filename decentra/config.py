"""Configuration: frozen sections, read from TOML, checked once at the edge.

`[run]` is what the swarm agrees on: it is hashed into the manifest and travels to joiners. `[node]` is what one
machine decides for itself and never travels. Unknown keys are errors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decentra.errors import ConfigError

CODECS = ("fp32", "bf16", "int8", "int4", "fp4", "topk")
"""Names of codecs, as they travel; build.py makes one of each."""

SPARSE_CODECS = ("topk",)
"""Those that send few elements: for contributions alone."""

OUTER_OPTIMIZERS = ("nesterov", "sgd", "average")
SCHEDULES = ("cosine", "wsd")
MERGES = ("mix", "eager")
SYNCS = ("steps", "time")
WEIGHTS = ("tokens", "normalised")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The Llama to train. Sizes in elements; `ffn_dim` 0 means round_up(8/3 dim, 64)."""

    dim: int = 256
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 4
    ffn_dim: int = 0
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tied: bool = False


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
    """The inner optimizer (AdamW) of every replica. All tokens are the swarm's, committed.

    schedule: of lr after the warm-up, one of SCHEDULES; down to min_lr_share of it over decay_tokens, 0 for never. cosine falls
    from the warm-up on, wsd stays until decay_start_tokens.
    """

    lr: float = 3e-3
    min_lr_share: float = 0.1
    warmup_tokens: int = 50_000
    schedule: str = "cosine"
    decay_start_tokens: int = 0
    decay_tokens: int = 0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    batch_samples: int = 4


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
    weights: one of WEIGHTS; of a contribution in the average: tokens, or those with the pseudo-gradient scaled to the mean number of
    steps (normalised).
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
    weights: str = "tokens"

    @property
    def slot_steps(self) -> int:
        """Inner steps between two syncs."""
        return self.inner_steps // self.fragments

    @property
    def ahead_steps(self) -> int:
        """Inner steps of a slot that may be taken before the last sync is decided."""
        return self.slot_steps if self.merge == "eager" else self.overlap_steps


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
    daemon_threads: int = 1
    device: str = "auto"
    link: str = ""
    keep_snapshots: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole config file."""

    run: RunConfig = field(default_factory=RunConfig)
    node: NodeConfig = field(default_factory=NodeConfig)


def load(path: Path) -> Config:
    """Read a TOML config file. Raises ConfigError naming file, key and remedy."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    config: Config = from_dict(Config, raw, str(path), "")
    check_run(config.run, str(path))
    check_node(config.node, f"{path}: node.")
    return config


def from_dict(kind: type, raw: object, place: str, prefix: str) -> Any:
    """Build a config dataclass from plain values, strictly. Raises ConfigError."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{place}: [{prefix.rstrip('.')}] must be a table, not {raw!r}")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    for key in raw:
        if key not in known:
            raise ConfigError(f"{place}: unknown key {prefix}{key}; known here: {', '.join(sorted(known))}")
    for f in dataclasses.fields(kind):
        if f.name not in raw and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{place}: key {prefix}{f.name} is missing; add it")
    values = {key: _value(hints[key], value, place, prefix + key) for key, value in raw.items()}
    return kind(**values)


def _value(hint: Any, value: object, place: str, key: str) -> Any:
    if isinstance(hint, types.UnionType):
        options = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        return None if value is None else _value(options[0], value, place, key)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, place, key + ".")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{place}: {key} = {value!r} must be a list")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, each, place, f"{key}[{index}]") for index, each in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1000:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{place}: {key} = {value!r} must be of type {hint.__name__}")
    return value


def check_run(run: RunConfig, place: str) -> None:
    """Refuse settings that cannot train. Raises ConfigError with the rule."""
    for holds, rule in (*_numbers(run), *_shapes(run), *_choices(run)):
        if not holds:
            raise ConfigError(f"{place}: run.{rule}")


Rules = list[tuple[bool, str]]


def _numbers(run: RunConfig) -> Rules:
    model, data, inner, outer = run.model, run.data, run.inner, run.outer
    at_least_1 = {
        "outer.inner_steps": outer.inner_steps,
        "inner.batch_samples": inner.batch_samples,
        "data.context": data.context,
        "data.max_text_bytes": data.max_text_bytes,
        "outer.fragments": outer.fragments,
        "start_members": run.start_members,
        "model.dim": model.dim,
        "model.num_layers": model.num_layers,
        "model.num_heads": model.num_heads,
        "eval_samples": run.eval_samples,
        "snapshot_every": run.snapshot_every,
    }
    not_negative = {
        "seed": run.seed,
        "stop_syncs": run.stop_syncs,
        "stop_tokens": run.stop_tokens,
        "model.ffn_dim": model.ffn_dim,
        "inner.warmup_tokens": inner.warmup_tokens,
        "inner.decay_start_tokens": inner.decay_start_tokens,
        "inner.decay_tokens": inner.decay_tokens,
        "inner.weight_decay": inner.weight_decay,
        "inner.clip": inner.clip,
    }
    positive = {
        "model.norm_eps": model.norm_eps,
        "model.rope_theta": model.rope_theta,
        "inner.lr": inner.lr,
        "inner.eps": inner.eps,
        "outer.lr": outer.lr,
    }
    shares = {"inner.beta1": inner.beta1, "inner.beta2": inner.beta2, "outer.momentum": outer.momentum}
    rules = [(value >= 1, f"{key} = {value} must be at least 1") for key, value in at_least_1.items()]
    rules += [(0 <= value < 2**63, f"{key} = {value} must not be negative or beyond 2^63") for key, value in not_negative.items()]
    rules += [(0.0 < value < math.inf, f"{key} = {value} must be a positive number") for key, value in positive.items()]
    rules += [(0.0 <= value < 1.0, f"{key} = {value} must lie in [0, 1)") for key, value in shares.items()]
    rules.append((0.0 <= inner.min_lr_share <= 1.0, f"inner.min_lr_share = {inner.min_lr_share} must lie in [0, 1]"))
    return rules + _slots(run)


def _slots(run: RunConfig) -> Rules:
    """What holds between H, P, tau and the model's depth; each rule names the nearest value that holds."""
    outer, layers = run.outer, run.model.num_layers
    steps, parts, overlap = outer.inner_steps, max(1, outer.fragments), outer.overlap_steps
    nearest = max(1, round(steps / parts)) * parts
    longest = max(0, steps // parts - 1)
    return [
        (
            parts == 1 or parts <= layers,
            f"outer.fragments = {parts} must not be more than model.num_layers = {layers}; use {layers} at most",
        ),
        (
            steps % parts == 0,
            f"outer.inner_steps = {steps} must divide by outer.fragments = {parts}, for a sync comes every H / P steps; use {nearest}",
        ),
        (
            0 <= overlap <= longest,
            f"outer.overlap_steps = {overlap} must lie in 0 to {longest}, for it must end before the next sync, H / P = {steps // parts} "
            f"steps on; use {min(max(0, overlap), longest)}",
        ),
        (0.0 <= outer.alpha <= 1.0, f"outer.alpha = {outer.alpha} must lie in [0, 1]; use {min(max(0.0, outer.alpha), 1.0):g}"),
        *_eager(outer),
    ]


def _eager(outer: OuterConfig) -> Rules:
    """What merge = eager leaves no choice of."""
    mixes, alpha = outer.merge != "eager", OuterConfig().alpha
    return [
        (
            mixes or outer.overlap_steps == 0,
            f"outer.overlap_steps = {outer.overlap_steps} must be 0 where outer.merge is eager, which overlaps the whole slot; use 0",
        ),
        (
            mixes or outer.alpha == alpha,
            f"outer.alpha = {outer.alpha:g} is of outer.merge mix, for eager keeps all of its own; leave it at {alpha:g}",
        ),
    ]


def _shapes(run: RunConfig) -> Rules:
    model = run.model
    dim, heads, kv_heads = model.dim, model.num_heads, model.num_kv_heads
    head_dim = dim // max(1, heads)
    return [
        (heads >= 1 and dim % heads == 0, f"model.dim = {dim} must divide by num_heads = {heads}"),
        (kv_heads >= 1 and heads % kv_heads == 0, f"model.num_heads = {heads} must divide by num_kv_heads = {kv_heads}"),
        (head_dim >= 2 and head_dim % 2 == 0, f"model.dim / num_heads = {head_dim} must be even (RoPE)"),
        (0.0 < run.data.heldout_share < 0.5, f"data.heldout_share = {run.data.heldout_share} must lie between 0 and 0.5"),
        (512 <= run.data.vocab_size <= 65536, f"data.vocab_size = {run.data.vocab_size} must lie in 512 to 65536"),
    ]


def _choices(run: RunConfig) -> Rules:
    usable = bool(run.name) and run.name.isprintable() and not run.name.startswith(".") and "/" not in run.name
    rules = [
        (usable, f"name = {run.name!r} cannot name a directory; use letters and digits"),
        (run.data.source == "python", f"data.source = {run.data.source!r} is not known; use 'python'"),
    ]
    names = {
        "outer.optimizer": (run.outer.optimizer, OUTER_OPTIMIZERS),
        "outer.merge": (run.outer.merge, MERGES),
        "outer.sync": (run.outer.sync, SYNCS),
        "outer.weights": (run.outer.weights, WEIGHTS),
        "inner.schedule": (run.inner.schedule, SCHEDULES),
    }
    rules += [(name in known, f"{key} = {name!r} is not known; use {' or '.join(known)}") for key, (name, known) in names.items()]
    rules.append(
        (
            run.outer.optimizer != "average" or run.outer.lr == 1.0,
            f"outer.lr = {run.outer.lr:g} must be 1 where the optimizer is average; or use sgd",
        )
    )
    for key, codec in (("codec.up", run.codec.up), ("codec.down", run.codec.down)):
        rules.append((codec in CODECS, f"{key} = {codec!r} is not known; use one of {', '.join(CODECS)}"))
    # An average has no residual that would bring back later what is left out.
    rules.append((run.codec.down not in SPARSE_CODECS, f"codec.down = {run.codec.down!r} would drop most of every average; use int8"))
    aggregate, feedback = run.codec.aggregate, run.codec.feedback
    rules.append((aggregate in ("reduce", "gather"), f"codec.aggregate = {aggregate!r} is not known; use reduce or gather"))
    rules.append((0.0 <= feedback <= 1.0, f"codec.feedback = {feedback} must lie in [0, 1]"))
    return rules


def check_node(node: NodeConfig, place: str) -> None:
    """Refuse what no machine can do; `place` stands before the key, "--" for options. Raises ConfigError."""
    dashes = place.startswith("--")
    for key, port in (("port", node.port), ("dht-port" if dashes else "dht_port", node.dht_port)):
        if not 0 <= port < 65536:
            raise ConfigError(f"{place}{key}{' ' if dashes else ' = '}{port} is no port; choose 1 to 65535, or 0 for any free one")
    if node.trainer_threads < 1 or node.micro_batch < 0 or node.keep_snapshots < 0:
        name = "threads" if dashes else "trainer_threads"
        raise ConfigError(
            f"{place}{name} = {node.trainer_threads}, keep_snapshots = {node.keep_snapshots}, micro_batch = {node.micro_batch}: "
            "the first must be at least 1, the others not negative"
        )
    if node.daemon_threads < 1:
        raise ConfigError(f"{place}daemon_threads = {node.daemon_threads} must be at least 1")
    if node.reachable not in ("auto", "yes", "no"):
        raise ConfigError(f"{place}reachable{' ' if dashes else ' = '}{node.reachable!r} is not known; use auto, yes or no")
    if node.announce and node.reachable == "no":
        raise ConfigError(f"{place}announce {node.announce}: a node with reachable no announces no address; drop one of them")
    if node.announce and node.dht and not (node.port and node.dht_port):
        raise ConfigError(f"{place}announce {node.announce}: others dial fixed ports there; give {place}port and {place}dht-port too")
    if not node.listen:
        raise ConfigError(f"{place}listen is empty; give an address of this machine such as 127.0.0.1 or 0.0.0.0")
    parse_link(node.link)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a config dataclass."""
    return dataclasses.asdict(config)


def run_bytes(run: RunConfig) -> bytes:
    """Canonical bytes of `[run]`: JSON, keys sorted, no spaces. This is what the manifest carries and hashes."""
    return json.dumps(to_dict(run), sort_keys=True, separators=(",", ":")).encode()


def config_hash(run: RunConfig) -> str:
    """Names a `[run]` for people: 16 hex digits."""
    return hashlib.blake2b(run_bytes(run), digest_size=8).hexdigest()


def run_from_bytes(data: bytes) -> RunConfig:
    """The `[run]` that a manifest carries. Raises ConfigError."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the manifest's settings cannot be read: {error}") from error
    run: RunConfig = from_dict(RunConfig, raw, "manifest", "run.")
    check_run(run, "manifest")
    return run


def differing_keys(left: RunConfig, right: RunConfig) -> list[str]:
    """Dotted names of the `[run]` keys in which two configs differ."""

    def walk(a: dict[str, Any], b: dict[str, Any], prefix: str) -> list[str]:
        names: list[str] = []
        for key, value in a.items():
            if isinstance(value, dict):
                names += walk(value, b[key], f"{prefix}{key}.")
            elif value != b[key]:
                names.append(prefix + key)
        return names

    return walk(to_dict(left), to_dict(right), "run.")


def parse_link(text: str) -> tuple[float, float]:
    """'100mbit,50ms' -> (bytes a second, seconds one way). '' -> (inf, 0). Raises ConfigError."""
    if not text:
        return float("inf"), 0.0
    rate_units = {"kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}
    delay_units = {"ms": 1e-3, "s": 1.0}
    try:
        rate_text, _, delay_text = text.partition(",")
        rate = next(float(rate_text[: -len(unit)]) * scale for unit, scale in rate_units.items() if rate_text.endswith(unit))
        delay = 0.0
        if delay_text:
            delay = next(float(delay_text[: -len(unit)]) * scale for unit, scale in delay_units.items() if delay_text.endswith(unit))
        if not (rate > 0 and delay >= 0):
            raise ValueError
        return rate, delay
    except (StopIteration, ValueError):
        raise ConfigError(f"link {text!r} cannot be read; write RATE,DELAY such as 100mbit,50ms") from None
