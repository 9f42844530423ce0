"""Config: strict at the edge, one sentence that names key and remedy, and the same bytes for the same run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentra import build
from decentra.config import (
    CODECS,
    Config,
    InnerConfig,
    ModelConfig,
    RunConfig,
    check_run,
    differing_keys,
    from_dict,
    load,
    parse_link,
    run_bytes,
    run_from_bytes,
    to_dict,
)
from decentra.errors import ConfigError


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_overrides_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[run]\nname = "x"\n[run.inner]\nlr = 1\n[node]\nport = 4000\n')
    config = load(path)
    assert (config.run.name, config.run.inner.lr, config.node.port) == ("x", 1.0, 4000)
    assert type(config.run.inner.lr) is float
    assert config.run.model == ModelConfig() and config.run.inner == dataclasses.replace(InnerConfig(), lr=1.0)
    path.write_text("")
    assert load(path) == Config()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[run]\nnmae = 'x'", "unknown key run.nmae; known here: "),
        ("[run.inner]\nbeta3 = 1.0", "unknown key run.inner.beta3; known here: "),
        ("[rum]\n", "unknown key rum; known here: node, run"),
        (
            "[run.inner]\nschedule = 'wsd'\nwarmup_tokens = 900\ndecay_start_tokens = 899\ndecay_tokens = 1",
            "run.inner.decay_start_tokens = 899 must not lie within the warm-up of inner.warmup_tokens = 900; use 900 at least",
        ),
        ("[run.inner]\ndecay_start_tokens = 9", "run.inner.decay_start_tokens = 9 is read by inner.schedule = 'wsd' alone"),
        ("[run.outer]\ninner_steps = 2.5", "run.outer.inner_steps = 2.5 must be of type int"),
        ("[run.outer]\ninner_steps = true", "run.outer.inner_steps = True must be of type int"),
        ("[run.outer]\nlr = true", "run.outer.lr = True must be of type float"),
        ("[run.outer]\nlr = '0.7'", "run.outer.lr = '0.7' must be of type float"),
        ("[run.model]\ntied = 1", "run.model.tied = 1 must be of type bool"),
        ("[run.outer]\noptimizer = 'adam'", "run.outer.optimizer = 'adam' is not known; use nesterov or sgd or average"),
        ("[run.outer]\noptimizer = 'average'", "run.outer.lr = 0.7 must be 1 where the optimizer is average"),
        ("[run]\nname = 7", "run.name = 7 must be of type str"),
        ("run = 3", "[run] must be a table, not 3"),
        ("[run]\nmodel = 'big'", "[run.model] must be a table"),
        ("[run", "is not valid TOML"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_key(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[run.model]\ndim = 250", "run.model.dim = 250 must divide by num_heads = 4"),
        ("[run.model]\nnum_kv_heads = 3", "run.model.num_heads = 4 must divide by num_kv_heads = 3"),
        ("[run.model]\nnum_kv_heads = 0", "run.model.num_heads = 4 must divide by num_kv_heads = 0"),
        ("[run.model]\ndim = 12", "must be even (RoPE)"),
        ("[run.model]\nnum_layers = 0", "run.model.num_layers = 0 must be at least 1"),
        ("[run.data]\nheldout_share = 0.0", "run.data.heldout_share = 0.0 must lie between 0 and 0.5"),
        ("[run.data]\nsource = 'web'", "run.data.source = 'web' is not known; use 'python'"),
        ("[run.data]\nvocab_size = 511", "run.data.vocab_size = 511 must lie in 512 to 1048576"),
        ("[run.data]\ncontext = 0", "run.data.context = 0 must be at least 1"),
        ("[run.outer]\nmomentum = 1.0", "run.outer.momentum = 1.0 must lie in [0, 1)"),
        ("[run.outer]\ninner_steps = 0", "run.outer.inner_steps = 0 must be at least 1"),
        ("[run.inner]\nbatch_samples = 0", "run.inner.batch_samples = 0 must be at least 1"),
        ("[run]\nstart_members = 0", "run.start_members = 0 must be at least 1"),
        ("[run]\nsnapshot_every = 0", "run.snapshot_every = 0 must be at least 1"),
        ("[run.codec]\nup = 'int3'", "run.codec.up = 'int3' is not known; use one of fp32, bf16, int8"),
        ("[run.codec]\ndown = 'topk'", "run.codec.down = 'topk' would drop most of every average; use int8"),
        ("[run.outer]\nfragments = 3", "outer.fragments = 3 must not be more than model.num_layers = 2; use 2 at most"),
        ("[run.outer]\nfragments = 0", "outer.fragments = 0 must be at least 1"),
        ("[run.outer]\nsync = 'time'", "run.outer.budget_s = 0 must be a positive number of seconds where outer.sync is time; use what 25"),
        ("[run.outer]\nsync = 'time'\nbudget_s = -3.5", "run.outer.budget_s = -3.5 must be a positive number of seconds"),
        ("[run.outer]\nsync = 'time'\nbudget_s = nan", "run.outer.budget_s = nan must be a positive number of seconds"),
        ("[run.outer]\nbudget_s = 60.0", "run.outer.budget_s = 60 must be 0 where outer.sync is steps, whose slots inner_steps end"),
        ("[run.outer]\nweights = 'norm'", "outer.weights = 'norm' is not known; use tokens or normalised"),
        ("[run.outer]\nfragments = 2", "outer.inner_steps = 25 must divide by outer.fragments = 2, for a sync"),
        ("[run.outer]\noverlap_steps = 25", "outer.overlap_steps = 25 must lie in 0 to 24"),
        ("[run.outer]\ninner_steps = 24\nfragments = 2\noverlap_steps = 12", "before the next sync, H / P = 12 steps on; use 11"),
        ("[run.outer]\noverlap_steps = -1", "outer.overlap_steps = -1 must lie in 0 to 24"),
        ("[run.outer]\nalpha = 1.5", "outer.alpha = 1.5 must lie in [0, 1]; use 1"),
        ("[run.outer]\nalpha = nan", "outer.alpha = nan must lie in [0, 1]"),
        ("[run.outer]\nmerge = 'eager'\noverlap_steps = 3", "outer.overlap_steps = 3 must be 0 where outer.merge is eager"),
        ("[run.outer]\nmerge = 'eager'\nalpha = 0.0", "outer.alpha = 0 is of outer.merge mix"),
    ],
)
def test_settings_that_cannot_train_are_refused_with_their_rule(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refused(tmp_path, text)


def test_every_codec_that_is_built_can_be_named_and_no_other() -> None:
    assert set(CODECS) == set(build.codecs())


def test_a_file_that_is_not_there_or_not_text_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read config .*nothing.toml"):
        load(tmp_path / "nothing.toml")
    (tmp_path / "raw.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load(tmp_path / "raw.toml")


def test_the_defaults_can_train() -> None:
    check_run(RunConfig(), "defaults")


def test_a_run_travels_as_canonical_bytes() -> None:
    run = RunConfig(name="snapshot é", seed=2**40, inner=InnerConfig(lr=0.1 + 0.2))
    assert run_from_bytes(run_bytes(run)) == run
    assert run_bytes(run) == run_bytes(from_dict(RunConfig, dict(reversed(to_dict(run).items())), "here", ""))
    assert b" " not in run_bytes(RunConfig()) and run_bytes(run) != run_bytes(dataclasses.replace(run, seed=1))


def test_a_run_from_the_swarm_is_judged_as_a_file_is() -> None:
    with pytest.raises(ConfigError, match=r"manifest: unknown key run.extra"):
        run_from_bytes(run_bytes(RunConfig())[:-1] + b',"extra":1}')
    with pytest.raises(ConfigError, match=r"manifest: run.start_members = 0"):
        run_from_bytes(run_bytes(RunConfig(start_members=0)))


def test_differing_keys_are_named_with_their_sections() -> None:
    left, right = RunConfig(), RunConfig(seed=1, model=ModelConfig(dim=512), inner=InnerConfig(clip=2.0))
    assert differing_keys(left, left) == []
    assert sorted(differing_keys(left, right)) == ["run.inner.clip", "run.model.dim", "run.seed"]


@pytest.mark.parametrize(
    ("text", "rate", "delay"),
    [
        ("100mbit,50ms", 12.5e6, 0.05),
        ("1gbit", 125e6, 0.0),
        ("512kbit,1s", 64e3, 1.0),
        ("0.5mbit,0ms", 62500.0, 0.0),
        ("", math.inf, 0.0),
    ],
)
def test_a_link_is_a_rate_and_a_delay_one_way(text: str, rate: float, delay: float) -> None:
    assert parse_link(text) == pytest.approx((rate, delay))


BAD_LINKS = ["fast", "100", "100mbit,50", "mbit", "0mbit", "-1mbit", "100mbit,-5ms", "nanmbit", "1mbit,nanms", "1mbit;5ms"]


@pytest.mark.parametrize("text", BAD_LINKS)
def test_a_link_that_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read; write RATE,DELAY such as 100mbit,50ms"):
        parse_link(text)


@given(st.text(max_size=12))
def test_any_text_is_a_link_or_a_config_error(text: str) -> None:
    try:
        rate, delay = parse_link(text)
    except ConfigError:
        return
    assert rate > 0 and delay >= 0
