"""Many generations at once: every signal has the bits of one generation by itself."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.signals import SignalOptions, TokenSteps, analyze_steps, reduce_logits, signal_columns

ODD = (np.nan, -np.inf, -0.0, 0.0, -3.4e38)


def random_steps(rng: np.random.Generator, length: int, top_k: int, full: bool) -> TokenSteps:
    logits = rng.normal(scale=rng.uniform(0.5, 6.0, size=(length, 1)), size=(length, 30))
    if length and rng.random() < 0.3:
        logits[:, 20:] = -np.inf
    chosen = np.where(rng.random(length) < 0.6, logits.argmax(axis=1), rng.integers(0, 20, size=length))
    steps = reduce_logits(logits, chosen, top_k)
    nothing = np.full(length, np.nan)
    if length and top_k and rng.random() < 0.3:
        steps.top_logprobs[rng.integers(length), rng.integers(top_k)] = rng.choice(ODD)
        steps.logprob[rng.integers(length)] = rng.choice(ODD)
        steps.entropy[rng.integers(length)] = rng.choice((np.nan, -0.0, 0.0))
    return steps if full else dataclasses.replace(steps, entropy=nothing, self_certainty=nothing)


def joined(generations: list[TokenSteps]) -> TokenSteps:
    names = ("token_ids", "logprob", "top_ids", "top_logprobs", "entropy", "self_certainty")
    columns = {name: np.concatenate([getattr(g, name) for g in generations]) for name in names}
    return TokenSteps(**columns, vocab_size=generations[0].vocab_size)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.one_of(st.integers(0, 4), st.integers(0, 150)), min_size=1, max_size=25),
    st.integers(0, 21),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 1.0)),
)
def test_a_block_gives_the_bits_of_one_by_one(seed, lengths, top_k, windows):
    """A file analysed quickly and one of its records checked by an auditor must show the same numbers."""
    rng = np.random.default_rng(seed)
    options = SignalOptions(group_window=windows[0], tail_window=windows[1], bottom_share=windows[2])
    generations = [random_steps(rng, n, top_k, full=bool(rng.integers(2))) for n in lengths]
    columns = signal_columns(joined(generations), np.array(lengths), options)
    for place, steps in enumerate(generations):
        for name, value in dataclasses.asdict(analyze_steps(steps, options)[2]).items():
            found = columns[name][place]
            same = np.float64(found).tobytes() == np.float64(value).tobytes()
            assert same or (np.isnan(found) and np.isnan(value)), (name, found, value)


def test_a_block_longer_than_what_is_worked_on_at_once():
    """Where one run of steps ends and the next begins must leave no trace in a long generation."""
    rng = np.random.default_rng(5)
    lengths = [5000, 3, 0, 2047, 2048, 1, 900]
    generations = [random_steps(rng, n, 20, full=False) for n in lengths]
    columns = signal_columns(joined(generations), np.array(lengths))
    for place, steps in enumerate(generations):
        expected = dataclasses.asdict(analyze_steps(steps)[2])
        np.testing.assert_array_equal([columns[name][place] for name in expected], list(expected.values()))


@pytest.mark.parametrize("lengths", [[2, 2], [4, -1], [4]])
def test_lengths_that_do_not_fit_the_steps_are_refused(lengths):
    """Tokens of one generation would count for another."""
    steps = random_steps(np.random.default_rng(0), 3, 5, full=True)
    with pytest.raises(ValueError, match="lengths"):
        signal_columns(steps, np.array(lengths))


def test_no_generations_give_empty_columns():
    """A file without a record has a summary without a row, not an error."""
    columns = signal_columns(TokenSteps.empty(20, None), np.array([], dtype=np.int64))
    assert {len(column) for column in columns.values()} == {0}
