"""The outer step: its sign, its kernels, and that it does not depend on cuts or threads."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decentra.outer.average import add_term, coefficient, coefficient_bits, shares, weighted_mean
from decentra.outer.base import OuterOptimizer
from decentra.outer.nesterov import Nesterov
from decentra.outer.pseudograd import pseudo_gradient
from decentra.outer.sgd import Sgd


def normal(seed: int, count: int = 5000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def bits(values: torch.Tensor) -> bytes:
    return values.numpy().tobytes()


def test_a_pseudo_gradient_points_from_local_to_anchor() -> None:
    out = torch.empty(2)
    pseudo_gradient(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 4.0]), out)
    assert out.tolist() == [2.0, -3.0]


@pytest.mark.parametrize(
    ("optimizer", "lr", "momentum"),
    [
        (Nesterov(0.7, 0.9), 0.7, 0.9),
        (Nesterov(1.0, 0.0), 1.0, 0.0),
        (Nesterov(0.1, 0.5), 0.1, 0.5),
        (Sgd(2.0), 2.0, 0.0),
        (Sgd(1.0), 1.0, 0.0),
    ],
)
def test_the_outer_step_is_torchs_sgd_but_for_rounding(optimizer: OuterOptimizer, lr: float, momentum: float) -> None:
    anchor, state = normal(0), torch.zeros(5000)
    parameter = torch.nn.Parameter(anchor.clone())
    reference = torch.optim.SGD([parameter], lr=lr, momentum=momentum, nesterov=momentum > 0)
    for step in range(5):
        gradient = normal(10 + step)
        parameter.grad = gradient.clone()
        reference.step()
        optimizer.apply(anchor, state, gradient)
    assert torch.allclose(anchor, parameter.detach(), rtol=0, atol=1e-5)


def test_every_product_and_sum_of_the_outer_step_is_rounded_on_its_own() -> None:
    lr, mu = np.float32(0.7), np.float32(0.9)
    anchor, state, gradient = (normal(n).numpy() for n in range(3))
    momentum = (state * mu) + gradient
    wanted = anchor - ((momentum * mu) + gradient) * lr
    found, found_state = torch.from_numpy(anchor.copy()), torch.from_numpy(state.copy())
    Nesterov(0.7, 0.9).apply(found, found_state, torch.from_numpy(gradient.copy()))
    assert bits(found) == wanted.tobytes() and bits(found_state) == momentum.tobytes()


@pytest.mark.parametrize("optimizer", [Nesterov(1.0, 0.0), Sgd(1.0)])
def test_rate_one_without_momentum_subtracts_the_gradient_exactly(optimizer: OuterOptimizer) -> None:
    anchor, gradient = normal(0), normal(1)
    wanted = anchor - gradient
    optimizer.apply(anchor, torch.zeros(5000), gradient)
    assert bits(anchor) == bits(wanted)


def test_sgd_keeps_no_state() -> None:
    anchor, state, gradient = normal(0), normal(1), normal(2)
    wanted, before = anchor - gradient * 0.3, bits(state)
    Sgd(0.3).apply(anchor, state, gradient)
    assert bits(anchor) == bits(wanted) and bits(state) == before


def test_the_outer_step_does_not_depend_on_cuts_or_threads() -> None:
    threads, count = torch.get_num_threads(), 200_003

    def stepped(pieces: int, num_threads: int) -> bytes:
        torch.set_num_threads(num_threads)
        anchor, state, gradient = (normal(n, count) for n in range(3))
        for a, s, g in zip(anchor.chunk(pieces), state.chunk(pieces), gradient.chunk(pieces), strict=True):
            Nesterov(0.7, 0.9).apply(a, s, g)
        return bits(anchor) + bits(state)

    try:
        whole = stepped(1, 1)
        assert all(stepped(pieces, n) == whole for pieces, n in ((1, 2), (7, 1), (31, 2)))
    finally:
        torch.set_num_threads(threads)


@given(st.integers(1, 2**47), st.integers(0, 2**48))
def test_a_coefficient_is_the_ratio_rounded_once(weight: int, others: int) -> None:
    found = coefficient_bits(weight, weight + others)
    assert struct.pack("<I", found) == np.float32(np.float64(weight) / np.float64(weight + others)).tobytes()
    assert np.float32(coefficient(found)) == coefficient(found)
    assert coefficient_bits(weight, weight) == 0x3F800000


counts = st.integers(1, 2**47), st.integers(1, 2**32 - 1)


@given(st.lists(st.tuples(*counts), min_size=1, max_size=6))
def test_a_normalised_share_is_the_exact_ratio_rounded_once(contributions: list[tuple[int, int]]) -> None:
    weights, steps = ({n: each[k] for n, each in enumerate(contributions)} for k in (0, 1))
    total, mean = sum(weights.values()), Fraction(sum(steps.values()), len(steps))
    found = shares(weights, steps)
    for n in weights:
        exact = Fraction(weights[n], total) * mean / steps[n]
        assert coefficient(found[n]) == np.float32(float(exact))
    if len(set(steps.values())) == 1:
        assert found == shares(weights)


def test_one_contribution_or_equal_steps_make_normalised_shares_those_of_tokens_and_steps_scale_them_to_the_mean() -> None:
    assert shares({"a": 12345}, {"a": 7}) == {"a": 0x3F800000}
    weights = {"a": 3, "b": 7, "c": 11}
    assert shares(weights, dict.fromkeys(weights, 9)) == shares(weights)
    # As many samples a step everywhere: each counts alike, whatever it took.
    assert len(set(shares({"a": 100, "b": 200, "c": 400}, {"a": 1, "b": 2, "c": 4}).values())) == 1


def test_a_contribution_of_no_steps_is_no_division_by_zero() -> None:
    with pytest.raises(ValueError, match="no steps"):
        shares({"a": 1, "b": 1}, {"a": 0, "b": 4})


def test_the_mean_of_one_is_its_own_bits_and_terms_add_in_their_order() -> None:
    one = normal(0)
    assert bits(weighted_mean([one.clone()], [12345])) == bits(one)
    terms, weights = [normal(n).numpy() for n in range(3)], [1, 5, 9]
    scaled = [term * np.float32(weight / 15) for term, weight in zip(terms, weights, strict=True)]
    found = weighted_mean([torch.from_numpy(term.copy()) for term in terms], weights)
    assert bits(found) == ((scaled[0] + scaled[1]) + scaled[2]).tobytes()


def test_a_first_term_overwrites_whatever_stood_there() -> None:
    total = torch.full((3,), float("nan"))
    add_term(total, torch.tensor([1.0, -2.0, 0.5]), coefficient_bits(1, 2), True)
    assert total.tolist() == [0.5, -1.0, 0.25]
