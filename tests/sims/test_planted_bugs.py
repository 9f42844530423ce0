"""Each planted bug is found: by one known seed here, by a search from seed 0 under soak."""

import pytest

from sims.experiments.protocol_fuzz.campaign import judge, outcomes
from sims.experiments.protocol_fuzz.planted import PLANTED

SEARCHED_SEEDS = 300
FOUND = {
    # bug: (seed, what the watch says)
}


def test_every_planted_bug_has_its_pinned_seed():
    assert set(FOUND) == set(PLANTED)


@pytest.mark.parametrize("name", FOUND)
def test_a_planted_bug_is_found_by_its_seed_and_only_with_the_bug(name):
    seed, said = FOUND[name]
    with PLANTED[name]():
        found = judge(seed)
    assert said in found.fault, found.fault or "nothing found"
    assert not judge(seed).fault


@pytest.mark.soak
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found_within_300_seeds(name):
    assert any(outcome.fault for outcome in outcomes(range(SEARCHED_SEEDS), 1, planted=name))
