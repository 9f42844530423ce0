"""Settings: one canonical text for what a swarm changes, and one sentence for what it may not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentra.config import CODECS, CodecConfig, InnerConfig, ModelConfig, OuterConfig, RunConfig
from decentra.errors import ConfigError
from decentra.settings import KEYS, MAX_CHARS, change_of, differences, effective, next_fault, next_text, parse

RUN = RunConfig(
    model=ModelConfig(num_layers=4), outer=OuterConfig(inner_steps=20, fragments=2), inner=InnerConfig(schedule="wsd"), codec=CodecConfig()
)
WANTED = {"outer.inner_steps": 50, "codec.up": "int4", "inner.lr": 1e-3}


def test_a_change_names_what_differs_from_the_manifest_and_counts_itself() -> None:
    one = next_text(RUN, "", WANTED)
    assert one == '{"change":1,"set":{"codec.up":"int4","inner.lr":0.001,"outer.inner_steps":50}}'
    changed = effective(RUN, one)
    assert (changed.outer.inner_steps, changed.codec.up, changed.inner.lr) == (50, "int4", 1e-3)
    outer, inner = dataclasses.replace(RUN.outer, inner_steps=50), dataclasses.replace(RUN.inner, lr=1e-3)
    assert changed == dataclasses.replace(RUN, outer=outer, codec=CodecConfig(up="int4"), inner=inner)
    two = next_text(RUN, one, {"codec.up": "int8", "stop_syncs": 9})
    assert two == '{"change":2,"set":{"inner.lr":0.001,"outer.inner_steps":50,"stop_syncs":9}}'
    assert differences(RUN, one, two) == "codec.up = int8, stop_syncs = 9"
    assert (change_of(""), change_of(one), change_of(two)) == (0, 1, 2) and effective(RUN, "") is RUN


def test_a_wsd_run_is_extended_and_decayed_by_settings() -> None:
    extended = next_text(RUN, "", {"inner.decay_start_tokens": 10**6, "inner.decay_tokens": 10**5})
    decayed = next_text(RUN, extended, {"inner.decay_start_tokens": 600_000})
    assert effective(RUN, decayed).inner == dataclasses.replace(RUN.inner, decay_start_tokens=600_000, decay_tokens=10**5)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "inner.lr": st.floats(1e-6, 1) | st.just(1),
            "outer.inner_steps": st.integers(2, 200).map(lambda n: 2 * n),
            "outer.overlap_steps": st.integers(0, 1),
            "codec.up": st.sampled_from(CODECS),
            "stop_tokens": st.integers(0, 2**63 - 1),
        },
    )
)
def test_whatever_may_follow_is_read_back_to_the_same_and_asked_in_any_way_is_the_same_text(wanted: dict[str, object]) -> None:
    try:
        text = next_text(RUN, "", wanted)
    except ConfigError as error:
        assert "nothing to change" in str(error) and effective(RUN, '{"change":1,"set":{}}') == RUN
        return
    assert next_fault(RUN, "", text) == "" and len(text) <= MAX_CHARS
    assert next_text(RUN, "", dict(reversed(wanted.items()))) == text
    for key, value in wanted.items():
        section, _, name = key.rpartition(".")
        assert getattr(getattr(effective(RUN, text), section) if section else effective(RUN, text), name) == value


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["outer.fragments=4"], "outer.fragments cannot be changed in a run: it cuts the layout, which the manifest fixes; found"),
        (["outer.momentum=0.5"], "outer.momentum cannot be changed in a run: those that can are codec.down, codec.up, "),
        (["inner.lr"], "'inner.lr' sets nothing; write KEY=VALUE such as outer.inner_steps=50"),
        (["inner.lr=1", "run.inner.lr=2"], "inner.lr is given twice"),
        (["outer.inner_steps=fifty"], "settings: run.outer.inner_steps = 'fifty' must be of type int"),
        (["outer.inner_steps=51"], "run.outer.inner_steps = 51 must divide by outer.fragments = 2, for a sync"),
        (["inner.lr=NaN"], "run.inner.lr = nan must be a positive number"),
        (["codec.up=zip"], "run.codec.up = 'zip' is not known; use one of fp32, "),
        (["inner.decay_tokens=5"], "run.inner.decay_start_tokens = 0 must not lie within the warm-up of inner.warmup_tokens"),
        (["outer.inner_steps=20"], "outer.inner_steps = 20 holds already; nothing to change"),
    ],
)
def test_what_may_not_be_set_is_refused_in_one_sentence(words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        next_text(RUN, "", parse(words))
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_words_are_read_as_numbers_or_names() -> None:
    assert parse(["run.outer.alpha=0.5", "codec.up=int4", "stop_syncs=7"]) == {"outer.alpha": 0.5, "codec.up": "int4", "stop_syncs": 7}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 500, "not JSON"),
        ('{"change":1}', "not a change and what it sets"),
        ('{"change":true,"set":{"stop_syncs":9}}', "not a change and what it sets"),
        ('{"change":-1,"set":{"stop_syncs":9}}', "change -1 of the settings is none"),
        ('{"change":1,"set":{"seed":9}}', "seed cannot be changed in a run"),
        ('{"change":1, "set":{"stop_syncs":9}}', "not in their canonical form"),
        ('{"change":1,"set":{"inner.lr":1}}', "not in their canonical form"),
        ('{"change":1,"set":{"outer.inner_steps":20}}', "not in their canonical form"),
        ('{"change":1,"set":{"stop_syncs":9},"set":{"stop_syncs":8}}', "not in their canonical form"),
        ('{"change":1,"set":{}}', "it changes no setting"),
        ('{"change":2,"set":{"stop_syncs":9}}', "it is change 2 of the settings, where change 1 is due"),
        ('{"change":1,"set":{"codec.down":"topk"}}', "would drop most of every average"),
        ('{"change":1,"set":{"stop_syncs":%s}}' % ("1" * MAX_CHARS), "over the limit of 1024"),
    ],
)
def test_a_text_that_may_not_follow_is_refused_by_name(text: str, reason: str) -> None:
    assert reason in next_fault(RUN, "", text)


def test_every_key_is_one_of_a_run() -> None:
    for key in KEYS:
        section, _, name = key.rpartition(".")
        assert hasattr(getattr(RUN, section) if section else RUN, name)
