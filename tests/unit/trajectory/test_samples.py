"""Several answers to one prompt, on the reference model."""

import asyncio
import json
import math

import pytest

pytest.importorskip("torch")

from cert.answers import Judgement
from cert.core.errors import BatchError, ConfigurationError, InputError
from cert.reference.world import load_world
from cert.signals.samples import sample_signals
from cert.trajectory import HamiltonianMonitor
from cert.trajectory.samples import sample_seeds


@pytest.fixture(scope="module")
def monitor():
    with HamiltonianMonitor("reference", preload=True) as monitor:
        yield monitor


def question(exposures):
    """Return the chat question of the first fact that was read so many times."""
    fact = next(fact for fact in load_world().facts if fact.exposures == exposures)
    return [{"role": "user", "content": fact.question(0)}]


@pytest.fixture(scope="module")
def known(monitor):
    return monitor.analyze_samples(question(512), 20, seed=1, max_new_tokens=16)


def test_what_the_model_knows_has_a_lower_entropy_than_what_it_makes_up(monitor, known):
    """The point of semantic entropy: answers to an unknown question disagree."""
    unknown = monitor.analyze_samples(question(0), 20, seed=1, max_new_tokens=16)
    assert known.signals.semantic_entropy < unknown.signals.semantic_entropy
    assert known.signals.discrete_semantic_entropy < unknown.signals.discrete_semantic_entropy
    assert known.signals.self_consistency > unknown.signals.self_consistency


def test_the_signals_are_those_of_the_answers(known):
    """The clusters and probabilities are recomputed from the answers' own texts and numbers."""
    texts = [a.generated_text.strip().lower() for a in known.analyses]
    ids = [texts.index(text) for text in texts]
    logprobs = [float(a.generation.steps.logprob.sum()) for a in known.analyses]
    expected = sample_signals(ids, logprobs, [a.generation_steps for a in known.analyses])
    assert known.signals.self_consistency == expected.self_consistency
    assert math.isclose(known.signals.semantic_entropy, expected.semantic_entropy, rel_tol=1e-9)
    assert known.majority_answer in {a.generated_text for a in known.analyses}


def test_a_seed_repeats_the_answers_and_more_of_them_go_on_from_it(monitor, known):
    """A user who asks for more samples keeps those that were paid for."""
    fewer = monitor.analyze_samples(question(512), 5, seed=1, max_new_tokens=16)
    assert [a.generated_text for a in fewer.analyses] == [a.generated_text for a in known.analyses[:5]]
    assert all(a.from_cache for a in fewer.analyses)


def test_without_a_seed_the_samples_are_new_ones(monitor):
    """A cached sample would be counted as agreement."""
    one, two = (monitor.analyze_samples(question(0), 4, max_new_tokens=16) for _ in range(2))
    seeds = {a.generation.sampling.seed for a in one.analyses + two.analyses}
    assert len(seeds) == 8
    assert not any(a.from_cache for a in one.analyses + two.analyses)


def test_tasks_get_the_same_samples(monitor, known):
    """The asynchronous twin is the same measurement."""
    samples = asyncio.run(monitor.analyze_samples_async(question(512), 20, seed=1, max_new_tokens=16))
    assert samples.signals == known.signals
    assert samples.majority_answer == known.majority_answer


class Undecided:
    """A judge that reads nothing."""

    name = "undecided"

    def judge(self, requests):
        return [Judgement(missing="unreadable") for _ in requests]


def test_what_the_judge_leaves_open_is_not_measured(monitor):
    """A judge that failed must not turn into agreement or disagreement; the bounds are said."""
    samples = monitor.analyze_samples(question(0), 6, seed=3, sameness=Undecided(), max_new_tokens=16)
    assert samples.signals is None
    assert samples.majority_answer is None
    assert samples.coarsest.discrete_semantic_entropy < samples.finest.discrete_semantic_entropy
    assert json.loads(json.dumps(samples.to_dict(), allow_nan=False))["signals"] is None


class AsyncSame:
    """A rule that waits for a network."""

    name = "all the same"

    async def same_async(self, question, pairs):
        await asyncio.sleep(0)
        return [True for _ in pairs]


def test_an_asynchronous_rule_works_in_tasks_and_is_refused_elsewhere(monitor):
    """The error names the call that takes it."""
    samples = asyncio.run(
        monitor.analyze_samples_async(question(0), 4, seed=3, sameness=AsyncSame(), max_new_tokens=8)
    )
    assert samples.signals.self_consistency == 1.0
    with pytest.raises(ConfigurationError, match="asynchronous"):
        monitor.analyze_samples(question(0), 4, seed=3, sameness=AsyncSame(), max_new_tokens=8)


@pytest.mark.parametrize("n", [0, -1, 1001, 2.5, True])
def test_a_number_of_samples_that_cannot_be_is_refused(monitor, n):
    """Before anything is generated."""
    with pytest.raises(ConfigurationError, match="n must be"):
        monitor.analyze_samples("The", n)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"sameness": object()}, {"timeout": -1.0}])
def test_options_that_cannot_be_are_refused(monitor, options):
    """Greedy samples would all agree, which says nothing."""
    with pytest.raises(ConfigurationError):
        monitor.analyze_samples("The", 2, max_new_tokens=1, **options)


def test_one_sample_shows_nothing_and_says_so(monitor):
    """The entropy of one answer is 0 and its ceiling is 0 as well."""
    samples = monitor.analyze_samples("The birth city of", 1, seed=0, max_new_tokens=3)
    assert samples.signals.discrete_semantic_entropy == samples.signals.semantic_entropy_ceiling == 0.0


def test_a_bad_prompt_and_a_failure_are_errors(monitor):
    """An answer that failed leaves the others in the error."""
    with pytest.raises(InputError):
        monitor.analyze_samples("", 3)
    with pytest.raises(BatchError) as raised:
        monitor.analyze_samples("The birth city of", 3, max_new_tokens=200, timeout=1e-6)
    assert len(raised.value.results) == 3


def test_seeds_differ():
    """Two equal seeds would count one answer twice."""
    assert len(set(sample_seeds(1000, 0))) == 1000
    assert sample_seeds(3, 7) == sample_seeds(10, 7)[:3]
