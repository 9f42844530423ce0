"""Which settings hold: each rule names the value, and the nearest one that does where there is one."""

from __future__ import annotations

import math

from decentra.config.sections import (
    BAD_STEP_POLICIES,
    CODECS,
    INNER_OPTIMIZERS,
    MERGES,
    OUTER_OPTIMIZERS,
    ROPE_SCALINGS,
    SCHEDULES,
    SPARSE_CODECS,
    SYNCS,
    WEIGHTS,
    NodeConfig,
    OuterConfig,
    RunConfig,
)
from decentra.errors import ConfigError


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
        "model.max_context": model.max_context,
        "inner.warmup_tokens": inner.warmup_tokens,
        "inner.decay_start_tokens": inner.decay_start_tokens,
        "inner.decay_tokens": inner.decay_tokens,
        "inner.weight_decay": inner.weight_decay,
        "inner.clip": inner.clip,
    }
    positive = {
        "model.norm_eps": model.norm_eps,
        "model.rope_theta": model.rope_theta,
        "model.rope_low_freq_factor": model.rope_low_freq_factor,
        "inner.lr": inner.lr,
        "inner.eps": inner.eps,
        "outer.lr": outer.lr,
    }
    shares = {"inner.beta1": inner.beta1, "inner.beta2": inner.beta2, "outer.momentum": outer.momentum}
    shares["inner.muon_momentum"] = inner.muon_momentum
    rules = [(value >= 1, f"{key} = {value} must be at least 1") for key, value in at_least_1.items()]
    rules += [(0 <= value < 2**63, f"{key} = {value} must not be negative or beyond 2^63") for key, value in not_negative.items()]
    rules += [(0.0 < value < math.inf, f"{key} = {value} must be a positive number") for key, value in positive.items()]
    rules += [(0.0 <= value < 1.0, f"{key} = {value} must lie in [0, 1)") for key, value in shares.items()]
    rules.append((0.0 <= inner.min_lr_share <= 1.0, f"inner.min_lr_share = {inner.min_lr_share} must lie in [0, 1]"))
    return rules + _schedule(run) + _slots(run)


def _schedule(run: RunConfig) -> Rules:
    """What holds between warm-up and decay."""
    inner = run.inner
    start, warm = inner.decay_start_tokens, inner.warmup_tokens
    falls = inner.schedule == "wsd" and inner.decay_tokens > 0
    return [
        (
            not falls or start >= warm,
            f"inner.decay_start_tokens = {start} must not lie within the warm-up of inner.warmup_tokens = {warm}; use {warm} at least",
        ),
        (
            inner.schedule == "wsd" or start == 0,
            f"inner.decay_start_tokens = {start} is read by inner.schedule = 'wsd' alone, for {inner.schedule!r} falls from the warm-up "
            "on; use 0",
        ),
    ]


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
        (
            outer.sync != "steps" or outer.budget_s == 0.0,
            f"outer.budget_s = {outer.budget_s:g} must be 0 where outer.sync is steps, whose slots inner_steps end; or use sync = time",
        ),
        (
            outer.sync != "time" or 0.0 < outer.budget_s < math.inf,
            f"outer.budget_s = {outer.budget_s:g} must be a positive number of seconds where outer.sync is time; "
            f"use what {steps // parts} inner steps of an average machine take",
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
        (model.rope_factor >= 1.0, f"model.rope_factor = {model.rope_factor:g} must be at least 1, which stretches nothing"),
        (
            bool(model.rope_scaling) or model.rope_factor == 1.0,
            f"model.rope_factor = {model.rope_factor:g} needs a model.rope_scaling, linear or llama3; or use 1",
        ),
        (
            model.rope_high_freq_factor > model.rope_low_freq_factor,
            f"model.rope_high_freq_factor = {model.rope_high_freq_factor:g} must be more than "
            f"model.rope_low_freq_factor = {model.rope_low_freq_factor:g}",
        ),
        (model.rope_original_context >= 1, f"model.rope_original_context = {model.rope_original_context} must be at least 1"),
        (
            model.vocab_size in (0, run.data.vocab_size),
            f"model.vocab_size = {model.vocab_size} must be that of the tokenizer, data.vocab_size = {run.data.vocab_size}; use 0 for it",
        ),
        (
            model.max_context == 0 or model.max_context >= run.data.context,
            f"model.max_context = {model.max_context} must hold data.context = {run.data.context}; use 0 for as many",
        ),
        (0.0 < run.data.heldout_share < 0.5, f"data.heldout_share = {run.data.heldout_share} must lie between 0 and 0.5"),
        (512 <= run.data.vocab_size <= 1 << 20, f"data.vocab_size = {run.data.vocab_size} must lie in 512 to {1 << 20}"),
    ]


def _choices(run: RunConfig) -> Rules:
    usable = bool(run.name) and run.name.isprintable() and not run.name.startswith(".") and "/" not in run.name
    rules = [
        (usable, f"name = {run.name!r} cannot name a directory; use letters and digits"),
        (run.data.source == "python", f"data.source = {run.data.source!r} is not known; use 'python'"),
    ]
    names = {
        "inner.optimizer": (run.inner.optimizer, INNER_OPTIMIZERS),
        "outer.optimizer": (run.outer.optimizer, OUTER_OPTIMIZERS),
        "outer.merge": (run.outer.merge, MERGES),
        "outer.sync": (run.outer.sync, SYNCS),
        "outer.weights": (run.outer.weights or WEIGHTS[0], WEIGHTS),
        "inner.schedule": (run.inner.schedule, SCHEDULES),
        "model.rope_scaling": (run.model.rope_scaling, ROPE_SCALINGS),
    }
    for key, (name, known) in names.items():
        rules.append((name in known, f"{key} = {name!r} is not known; use {' or '.join(filter(None, known))}"))
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
    if node.on_bad_step not in BAD_STEP_POLICIES:
        key = "on-bad-step " if dashes else "on_bad_step = "
        raise ConfigError(f"{place}{key}{node.on_bad_step!r} is not known; use {' or '.join(BAD_STEP_POLICIES)}")
    if node.reachable not in ("auto", "yes", "no"):
        raise ConfigError(f"{place}reachable{' ' if dashes else ' = '}{node.reachable!r} is not known; use auto, yes or no")
    if node.announce and node.reachable == "no":
        raise ConfigError(f"{place}announce {node.announce}: a node with reachable no announces no address; drop one of them")
    if node.announce and node.dht and not (node.port and node.dht_port):
        raise ConfigError(f"{place}announce {node.announce}: others dial fixed ports there; give {place}port and {place}dht-port too")
    if not node.listen:
        raise ConfigError(f"{place}listen is empty; give an address of this machine such as 127.0.0.1 or 0.0.0.0")
    parse_link(node.link)


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
