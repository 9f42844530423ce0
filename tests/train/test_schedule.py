"""The learning rate by tokens."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentra.config import InnerConfig
from decentra.train.schedule import learning_rate, slot_tokens

CONSTANT = InnerConfig(lr=1e-2, warmup_tokens=1000, decay_tokens=0)
STABLE = InnerConfig(lr=1e-2, warmup_tokens=1000, schedule="wsd", decay_start_tokens=5000, decay_tokens=4000, min_lr_share=0.1)
FALLING = InnerConfig(lr=1e-2, warmup_tokens=1000, decay_tokens=4000, min_lr_share=0.1)


@pytest.mark.parametrize(("tokens", "lr"), [(0, 0.0), (1, 1e-5), (500, 5e-3), (1000, 1e-2), (10**9, 1e-2)])
def test_warm_up_then_constant(tokens: float, lr: float) -> None:
    assert learning_rate(tokens, CONSTANT) == pytest.approx(lr)


@pytest.mark.parametrize(("tokens", "lr"), [(500, 5e-3), (1000, 1e-2), (3000, 5.5e-3), (5000, 1e-3), (10**9, 1e-3)])
def test_cosine_falls_to_its_share(tokens: float, lr: float) -> None:
    assert learning_rate(tokens, FALLING) == pytest.approx(lr)


@pytest.mark.parametrize(
    ("tokens", "lr"),
    [(500, 5e-3), (1000, 1e-2), (5000, 1e-2), (6000, 5.5e-3), (7250, 1e-2 * (0.1 + 0.9 * 0.25)), (9000, 1e-3), (10**9, 1e-3)],
)
def test_wsd_warms_up_stays_and_falls_as_one_less_the_root(tokens: float, lr: float) -> None:
    assert learning_rate(tokens, STABLE) == pytest.approx(lr)


@pytest.mark.parametrize("config", [FALLING, STABLE])
def test_a_share_of_zero_falls_to_nothing_and_stays_there(config: InnerConfig) -> None:
    config = dataclasses.replace(config, min_lr_share=0.0)
    rates = [learning_rate(tokens, config) for tokens in (8999, 9000, 10**12)]
    assert learning_rate(4999, config) > 0.0 and rates[1:] == pytest.approx([0.0, 0.0], abs=1e-12)


def test_without_decay_tokens_wsd_is_constant_wherever_the_decay_would_start() -> None:
    config = dataclasses.replace(STABLE, decay_tokens=0)
    assert {learning_rate(tokens, config) for tokens in (1000, 5000, 9000, 10**12)} == {1e-2}


@given(start=st.integers(1000, 10**12), decay=st.integers(1, 10**12), share=st.floats(0, 1), at=st.lists(st.integers(0, 3 * 10**12)))
def test_wsd_never_rises_after_the_warm_up_and_ends_at_its_share(start: int, decay: int, share: float, at: list[int]) -> None:
    config = dataclasses.replace(STABLE, decay_start_tokens=start, decay_tokens=decay, min_lr_share=share)
    rates = [learning_rate(tokens, config) for tokens in sorted([1000, start, *at, start + decay]) if tokens >= 1000]
    assert rates == sorted(rates, reverse=True) and rates[0] == 1e-2
    assert learning_rate(start + decay, config) == pytest.approx(share * 1e-2)


def test_a_wsd_run_is_extended_while_stable_and_decayed_from_any_checkpoint() -> None:
    later = dataclasses.replace(STABLE, decay_start_tokens=50_000)
    assert all(learning_rate(tokens, later) == learning_rate(tokens, STABLE) for tokens in range(0, 5001, 250))
    assert learning_rate(9000, later) == 1e-2
    now = dataclasses.replace(STABLE, decay_start_tokens=3000, decay_tokens=1000)
    assert all(learning_rate(tokens, now) == learning_rate(tokens, STABLE) for tokens in range(0, 3001, 250))
    assert learning_rate(4000, now) == pytest.approx(1e-3)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, InnerConfig(lr=1e-2, warmup_tokens=0)) == 1e-2


def test_slot_tokens_run_from_committed_to_the_next_sync_and_stop_there() -> None:
    assert slot_tokens(10_000, 4000, 0, 8) == 10_000
    assert slot_tokens(10_000, 4000, 2, 8) == 11_000
    assert slot_tokens(10_000, 4000, 8, 8) == slot_tokens(10_000, 4000, 9, 8) == 14_000


def test_whole_tokens_a_step_stay_whole() -> None:
    for step in range(1, 26):
        assert slot_tokens(7 * 25 * 512, 25 * 512, step, 25) == (7 * 25 + step) * 512
