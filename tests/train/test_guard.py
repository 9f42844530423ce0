"""Bad steps: found before they are taken, named, and done with as the node says."""

from __future__ import annotations

import math
import random

import pytest
import torch

from decentra.config import InnerConfig, ModelConfig
from decentra.model.init import seeded
from decentra.train.guard import WINDOW, Guard, SlotDropped, guilty_tensor
from decentra.train.step import Replica

MODEL = ModelConfig(dim=32, num_layers=2, num_heads=4, num_kv_heads=2, vocab_size=64)
TOKENS = torch.randint(0, 64, (4, 17), generator=torch.Generator().manual_seed(0))
BATCH = (TOKENS[:, :-1], TOKENS[:, 1:])


def filled() -> Guard:
    """A guard that has seen a window of losses about 3 and norms about 1."""
    guard, draw = Guard(), random.Random(0)
    assert not any(guard.fault(draw.gauss(3.0, 0.1), draw.gauss(1.0, 0.05)) for _ in range(WINDOW))
    return guard


@pytest.mark.parametrize(
    ("loss", "norm", "says"),
    [
        (3.2, 1.1, ""),
        (0.1, 0.01, ""),
        (3.3, 1.0, ""),
        (4.0, 1.0, "its loss 4 lies"),
        (3.0, 2.0, "its gradient norm 2 lies"),
        (9.0, 9.0, "its loss 9 lies"),
        (math.nan, 1.0, "its loss is nan"),
        (3.0, math.inf, "its gradient norm is inf"),
    ],
)
def test_six_standard_deviations_above_the_window_are_too_many(loss: float, norm: float, says: str) -> None:
    found = filled().fault(loss, norm)
    assert says in found if says else not found


def test_a_window_that_is_not_full_judges_finiteness_alone() -> None:
    guard = Guard()
    for _ in range(WINDOW - 1):
        assert not guard.fault(3.0, 1.0)
    assert not guard.fault(1e6, 1e6) and guard.fault(math.nan, 1.0)


def test_noise_on_a_level_line_is_no_outlier_and_a_jump_is() -> None:
    guard = Guard()
    for _ in range(WINDOW):
        assert not guard.fault(3.0, 1.0)
    assert not guard.fault(3.0 + 1e-4, 1.0) and guard.fault(3.1, 1.0)


def test_a_change_that_lasts_is_taken_for_what_it_is() -> None:
    guard = filled()
    refused = [bool(guard.fault(6.0, 1.0)) for _ in range(WINDOW)]
    assert refused[0] and not refused[-1] and refused.index(False) < 10


def test_the_guilty_tensor_is_the_first_that_is_not_finite_else_the_largest() -> None:
    model = seeded(MODEL, 0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    grads = dict(model.named_parameters())
    grads["model.norm.weight"].grad[3] = 2.0  # type: ignore[index]
    assert guilty_tensor(model) == "model.norm.weight"
    grads["model.layers.1.mlp.up_proj.weight"].grad[0, 0] = math.nan  # type: ignore[index]
    assert guilty_tensor(model) == "model.layers.1.mlp.up_proj.weight"


def spoilt(policy: str, said: list[str]) -> Replica:
    """A replica whose next step is bad."""
    replica = Replica(seeded(MODEL, 0), InnerConfig(batch_samples=4), on_bad_step=policy, note=said.append)
    replica.inner_step(*BATCH, lr=1e-3)
    with torch.no_grad():
        replica.model.get_parameter("model.layers.0.mlp.down_proj.weight")[0, 0] = math.nan
    return replica


def test_a_step_that_is_skipped_changes_nothing_and_names_a_tensor() -> None:
    said: list[str] = []
    replica = spoilt("skip", said)
    before = {name: tensor.clone() for name, tensor in replica.model.state_dict().items()}
    moments = {id(p): state["exp_avg"].clone() for p, state in replica.optimizers[0].state.items()}
    assert math.isnan(replica.inner_step(*BATCH, lr=1e-3))
    after = replica.model.state_dict()
    assert all(torch.equal(after[name].nan_to_num(7.0), tensor.nan_to_num(7.0)) for name, tensor in before.items())
    assert all(torch.equal(moments[id(p)], state["exp_avg"]) for p, state in replica.optimizers[0].state.items())
    assert len(said) == 1 and "its loss is nan" in said[0] and "look at model." in said[0] and "skipped" in said[0]


@pytest.mark.parametrize(("policy", "leave"), [("drop", False), ("stop", True)])
def test_a_step_that_takes_its_slot_along_says_so(policy: str, leave: bool) -> None:
    said: list[str] = []
    with pytest.raises(SlotDropped, match="its loss is nan") as why:
        spoilt(policy, said).inner_step(*BATCH, lr=1e-3)
    assert why.value.leave == leave and len(said) == 1


def test_steps_after_a_skipped_one_are_as_if_it_had_not_been() -> None:
    replicas = [Replica(seeded(MODEL, 0), InnerConfig(batch_samples=4), note=lambda said: None) for _ in range(2)]
    for number, replica in enumerate(replicas):
        replica.inner_step(*BATCH, lr=1e-3)
        if number:
            weight = replica.model.get_parameter("model.norm.weight").data
            kept = float(weight[0])
            weight[0] = math.inf
            replica.inner_step(*BATCH, lr=1e-3)
            weight[0] = kept
        replica.inner_step(*BATCH, lr=1e-3)
    for a, b in zip(replicas[0].model.parameters(), replicas[1].model.parameters(), strict=True):
        assert torch.equal(a, b)
