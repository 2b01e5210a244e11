"""Splits by unit: what is about one person, document or question is never on both sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.core.errors import ConfigurationError, InputError
from cert.trajectory.calibration.splits import one_per_unit, split_units

UNITS = st.lists(st.integers(0, 12), min_size=1, max_size=60).map(np.array)


@given(units=UNITS, seed=st.integers(0, 99))
def test_no_unit_is_in_two_parts(units, seed):
    """Answers about one person on both sides make a test set that knows the answers."""
    if len(np.unique(units)) < 3:
        return
    parts = split_units(units, (0.3, 0.4, 0.3), seed)
    assert (np.sum(parts, axis=0) == 1).all()
    for unit in np.unique(units):
        assert sum(part[units == unit].any() for part in parts) == 1


@given(units=UNITS, seed=st.integers(0, 99), data=st.data())
def test_the_order_of_the_answers_does_not_matter(units, seed, data):
    """A file that was sorted anew would give another test set, and another certificate."""
    if len(np.unique(units)) < 2:
        return
    order = np.array(data.draw(st.permutations(range(len(units)))))
    first, _ = split_units(units, (0.5, 0.5), seed)
    again, _ = split_units(units[order], (0.5, 0.5), seed)
    assert (first[order] == again).all()


def test_parts_have_the_shares_of_units_that_were_asked_for():
    """A share is of units, whatever the number of answers; a tenth of ten is one, in binary too."""
    units = np.repeat(np.arange(10), np.arange(1, 11))
    for shares, sizes in (((0.1, 0.9), (1, 9)), ((0.3, 0.7), (3, 7)), ((0.1, 0.2, 0.3), (1, 2, 3))):
        parts = split_units(units, shares, 4)
        assert tuple(len(np.unique(units[part])) for part in parts) == sizes


def test_every_unit_is_as_likely_in_a_part():
    """A shuffle that favours the first units would favour old questions."""
    counts = np.zeros(5)
    for seed in range(2000):
        counts += split_units(np.arange(5), (0.4, 0.6), seed)[0]
    assert np.abs(counts / 2000 - 0.4).max() < 0.05  # 4.5 standard errors


@pytest.mark.parametrize("shares", [(), (0.0, 1.0), (0.7, 0.7), (float("nan"), 0.5), (-0.1, 0.5)])
def test_shares_that_cannot_be_right_are_refused(shares):
    """A typing error must not quietly give a split of something else."""
    with pytest.raises(ConfigurationError):
        split_units(np.arange(10), shares)


def test_too_few_units_for_the_parts_are_refused():
    """An empty test set has an error rate of nothing."""
    with pytest.raises(InputError, match="too few"):
        split_units(np.array([7, 7, 7]), (0.5, 0.5))


@given(units=UNITS, seed=st.integers(0, 99))
def test_one_of_each_unit_is_drawn(units, seed):
    """Two of a unit are not independent; none of it is a unit lost."""
    chosen = units[one_per_unit(units, seed)]
    assert sorted(chosen) == sorted(set(units.tolist()))


def test_each_answer_of_a_unit_is_drawn_as_often():
    """Always taking the first answer would judge first answers only."""
    units = np.array([0, 1, 1, 1, 2])
    counts = np.sum([one_per_unit(units, seed) for seed in range(3000)], axis=0)
    assert counts[0] == counts[4] == 3000
    assert np.abs(counts[1:4] / 3000 - 1 / 3).max() < 0.04
