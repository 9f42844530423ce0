"""The learning rate by tokens."""

from __future__ import annotations

import pytest

from decentra.config import InnerConfig
from decentra.train.schedule import learning_rate, slot_tokens

CONSTANT = InnerConfig(lr=1e-2, warmup_tokens=1000, decay_tokens=0)
FALLING = InnerConfig(lr=1e-2, warmup_tokens=1000, decay_tokens=4000, min_lr_share=0.1)


@pytest.mark.parametrize(("tokens", "lr"), [(0, 0.0), (1, 1e-5), (500, 5e-3), (1000, 1e-2), (10**9, 1e-2)])
def test_warm_up_then_constant(tokens: float, lr: float) -> None:
    assert learning_rate(tokens, CONSTANT) == pytest.approx(lr)


@pytest.mark.parametrize(("tokens", "lr"), [(500, 5e-3), (1000, 1e-2), (3000, 5.5e-3), (5000, 1e-3), (10**9, 1e-3)])
def test_cosine_falls_to_its_share(tokens: float, lr: float) -> None:
    assert learning_rate(tokens, FALLING) == pytest.approx(lr)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, InnerConfig(lr=1e-2, warmup_tokens=0)) == 1e-2


def test_slot_tokens_run_from_committed_to_the_next_sync_and_stop_there() -> None:
    assert slot_tokens(10_000, 4000, 0, 8) == 10_000
    assert slot_tokens(10_000, 4000, 2, 8) == 11_000
    assert slot_tokens(10_000, 4000, 8, 8) == slot_tokens(10_000, 4000, 9, 8) == 14_000


def test_whole_tokens_a_step_stay_whole() -> None:
    for step in range(1, 26):
        assert slot_tokens(7 * 25 * 512, 25 * 512, step, 25) == (7 * 25 + step) * 512
