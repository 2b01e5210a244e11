"""ω and its twins, and money per quality."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.statistics import (
    Qualities,
    agent_spread,
    best_agents,
    cost_per_further_point,
    cost_per_point,
    omega,
    omega_best_agent,
    omega_best_sample,
    omega_bias,
)
from cert.core.errors import InputError


def known(value):
    """What is measured here; a test of a missing number would pass for the wrong reason."""
    assert value is not None
    return value


def test_expected_maxima_are_those_of_the_tables():
    """c_n of David's tables: 1/√π, 3/(2√π), 1.02938, 1.16296, 1.53875."""
    expected = {
        1: 0.0,
        2: 1 / math.sqrt(math.pi),
        3: 1.5 / math.sqrt(math.pi),
        4: 1.0293753730,
        5: 1.1629644736,
        10: 1.5387527308,
    }
    for n, value in expected.items():
        assert omega_bias(1.0, n) == pytest.approx(-value, abs=1e-9)
    with pytest.raises(InputError):
        omega_bias(1.0, 0)


def test_classic_omega_is_biased_and_its_twins_are_not():
    """A coordination that adds nothing is marked down by ω for having good agents to compare with."""
    system = Qualities(0.0, varied=0.0, replicates=3)
    rows = []
    for seed in range(60):
        drawn = system.draw(40, np.random.default_rng((12, seed)))
        other = np.random.default_rng((13, seed)).random((40, 3))
        rows.append(
            [
                omega(drawn.coordinated, drawn.agents).value,
                omega_bias(agent_spread(drawn.agents), 3),
                omega_best_agent(drawn.coordinated, drawn.agents).value,
                omega_best_agent(drawn.coordinated, drawn.agents, scope="suite").value,
                omega_best_sample(drawn.coordinated, drawn.agents[:, 0], other).value,
            ]
        )
    classic, predicted, agent, suite, sample = np.mean(np.array(rows, dtype=float), axis=0)
    assert classic == pytest.approx(predicted, rel=0.08)
    assert classic < -0.1
    assert np.abs([agent, suite, sample]) == pytest.approx(0.0, abs=0.015)


def test_best_agent_is_the_best_where_there_is_one():
    """With one agent that is really better, both scopes compare with that one."""
    agents = np.full((6, 3, 3), 0.4)
    agents[:, :, 1] = 0.8
    for scope in ("task", "suite"):
        assert best_agents(agents, scope) == pytest.approx(np.full((6, 3), 0.8))
        assert omega_best_agent(np.full(6, 0.7), agents, scope=scope).value == pytest.approx(-0.1)


def test_best_agent_is_chosen_on_the_other_replicates():
    """Choosing on the same scores is what biases the classic ω."""
    agents = np.array([[[0.9, 0.1], [0.2, 0.6]]])  # a task, two replicates, two agents
    assert best_agents(agents) == pytest.approx(np.array([[0.1, 0.2]]))


def test_agents_that_tie_share_the_place():
    """Taking the first of them would let the order of the agents decide."""
    agents = np.array([[[0.9, 0.1], [0.5, 0.5]]])
    assert best_agents(agents)[0, 0] == pytest.approx(0.5)


def test_one_replicate_chooses_nobody():
    """Not measured, and why: never the biased number under the unbiased name."""
    found = omega_best_agent([0.5, 0.6], [[0.4, 0.6], [0.5, 0.7]])
    assert found.value is None
    assert "at least 2" in known(found.missing)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.permutations([0, 1, 2]))
def test_order_of_agents_changes_nothing(seed, order):
    """Agents have names; their place in a list is no information."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((4, 3, 3)), 1)
    coordinated = rng.random(4)
    for function in (omega, omega_best_agent):
        one, other = function(coordinated, scores), function(coordinated, scores[:, :, order])
        assert one.value == pytest.approx(other.value, abs=1e-12)


def test_a_missing_agent_leaves_the_maximum_unmeasured():
    """The one that is missing may be the best: the maximum of the others would flatter coordination."""
    found = omega([0.5, 0.6], [[0.4, math.nan], [0.5, 0.7]])
    assert found.value == pytest.approx(-0.1)
    assert found.dropped == 1


def test_best_sample_is_the_other_judge_s_choice():
    """Its score counts by the scoring judge; where the other judge said nothing there is no choice."""
    found = omega_best_sample(
        [0.5, 0.5, 0.5],
        [[0.1, 0.9], [0.3, 0.9], [0.2, 0.2]],
        [[0.8, 0.2], [0.5, math.nan], [math.nan, math.nan]],
    )
    assert found.value == pytest.approx((0.4 + 0.2) / 2)
    assert found.tasks == 2
    with pytest.raises(InputError):
        omega_best_sample([0.5], [[0.1, 0.2]], [[0.1]])


def test_cost_of_a_point():
    """Two arms at 100 and 50 points: the ratio of sums, which a task of no quality cannot ruin."""
    found = cost_per_point([1000, 3000, 2000], [0.5, 0.0, 1.0])
    assert found.value == pytest.approx(6000 / 150)
    assert known(found.interval).low < known(found.value) < known(found.interval).high
    assert cost_per_point([1000, math.nan], [0.0, 0.5]).value is None


def test_cost_of_a_further_point_needs_a_gain():
    """The price of a gain that may be none is not a number."""
    rng = np.random.default_rng(1)
    second = rng.uniform(0.3, 0.5, 60)
    first = second + rng.uniform(0.1, 0.3, 60)
    costs = rng.integers(2000, 4000, 60), np.full(60, 1000)
    found = cost_per_further_point((costs[0], first), (costs[1], second))
    assert found.value == pytest.approx((costs[0] - 1000).mean() / (100 * (first - second).mean()))
    assert known(found.interval).low < known(found.value) < known(found.interval).high < math.inf
    none = cost_per_further_point((costs[0], second[::-1]), (costs[1], second))
    assert none.value is None
    assert none.missing == "a gain in quality is not shown: a point more has no known price"
    assert cost_per_further_point(([math.nan], [0.5]), ([1], [0.5])).value is None


def test_a_better_and_cheaper_system_has_a_negative_price():
    """Points that come with money back."""
    rng = np.random.default_rng(2)
    second = rng.uniform(0.3, 0.5, 60)
    found = cost_per_further_point(
        (rng.uniform(500, 600, 60), second + rng.uniform(0.2, 0.4, 60)), (np.full(60, 1000.0), second)
    )
    assert known(found.interval).high < 0


def test_bad_costs_are_refused():
    """One cost a task, finite."""
    with pytest.raises(InputError):
        cost_per_point([1, 2], [0.5])
    with pytest.raises(InputError):
        cost_per_point([math.inf], [0.5])
