"""The reference model's answers, small: signals find wrong ones, promises hold, few candidates are enough."""

import numpy as np
import pytest

from cert.signals import TokenSteps, signal_columns
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.goals import Goal
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.splits import split_units
from cert.trajectory.calibration.trials import guarantees_of_pool
from cert.trajectory.evaluation import evaluate_scores
from cert.trajectory.gate import Thresholds
from cert.trajectory.gate_columns import VERDICTS, verdicts

pytest.importorskip("torch")

PEOPLE = 200
K = 5
FOUND = ("msp", "mean_surprisal", "max_surprisal", "mean_entropy", "max_entropy", "mean_margin", "min_margin")


@pytest.fixture(scope="module")
def asked():
    """Facts about people of whom training never asked, and the steps of the model's answers."""
    from cert.backends.base import GenerationRequest, Message
    from cert.backends.local import LocalBackend
    from cert.reference import weights
    from cert.reference.answers import choose_facts
    from cert.reference.world import load_world

    facts = choose_facts(load_world(), PEOPLE, 2, seed=3)
    backend = LocalBackend.load(str(weights.path()))
    questions = [GenerationRequest((Message("user", fact.question()),), 16) for fact in facts]
    try:
        return facts, backend.generate_batch(questions)
    finally:
        backend.close()


@pytest.fixture(scope="module")
def pool(asked):
    """The answers as labelled data, with all of the vocabulary seen."""
    return _labelled(*asked)


def _labelled(facts, generations, cut=lambda steps: steps):
    steps = [cut(one.steps) for one in generations]
    names = ("token_ids", "logprob", "top_ids", "top_logprobs", "entropy", "self_certainty")
    whole = {name: np.concatenate([getattr(one, name) for one in steps]) for name in names}
    return LabelledData(
        ids=tuple(map(str, range(len(facts)))),
        correct=np.array(
            [f.states(one.text) for f, one in zip(facts, generations, strict=True)], dtype=np.bool_
        ),
        columns=signal_columns(
            TokenSteps(**whole, vocab_size=steps[0].vocab_size), np.array([len(one) for one in steps])
        ),
        units=np.array([fact.person.index for fact in facts]),
    )


def _truncated(steps, vocab_size):
    missing = np.full(len(steps), np.nan)
    top_ids, top = (np.ascontiguousarray(part[:, :K]) for part in (steps.top_ids, steps.top_logprobs))
    return TokenSteps(steps.token_ids, steps.logprob, top_ids, top, missing, missing, vocab_size)


@pytest.fixture(scope="module")
def few(asked):
    """The same answers as a server with five candidates shows them, which does not tell V."""
    facts, generations = asked
    return _labelled(facts, generations, cut=lambda steps: _truncated(steps, None))


def test_signals_find_wrong_answers(pool):
    """A sign that is the wrong way round would make a gate pass the wrong answers."""
    report = evaluate_scores(pool, FOUND, replicates=200)
    assert 0.1 < report.n_wrong / report.n < 0.9
    for score in report.scores:
        assert score.auroc.low is not None, score.name
        assert score.auroc.low > 0.5, score.name
        assert (score.prr.value or 0.0) > 0.0, score.name


def test_a_calibrated_gate_keeps_its_promise_on_real_answers(pool):
    """A promise that holds on made numbers alone is none."""
    goals: tuple[Goal, ...] = ("false-flags", "misses", "undetected-errors", "selective-risk")
    found = guarantees_of_pool(pool, "msp", units=80, alpha=0.2, goals=goals, draws=200)
    assert all(one.refused < one.draws for one in found)
    for one in found:
        assert one.kept, one
        if one.delta is None:
            # A gate that flags everything, or passes everything, would keep a promise too.
            assert one.mean_rate > one.alpha / 2
            assert 0.1 < one.pass_rate < 0.95


def test_a_shift_to_rarely_shown_facts_breaks_it(asked, pool):
    """Who is told that exchangeability does not matter loses the promise."""
    rare = pool.take(np.array([fact.exposures <= 4 for fact in asked[0]]))
    found = guarantees_of_pool(
        pool, "msp", units=80, alpha=0.2, goals=("undetected-errors",), draws=200, deployed=rare
    )
    assert not found[0].kept


def test_a_calibrated_gate_decides_by_the_lower_bound(pool, few):
    """A server's five candidates must be enough for a verdict with a promise, on every answer."""
    lower, full = few.columns["max_entropy_lower"], pool.columns["max_entropy_lower"]
    assert (lower <= full + 1e-6).all()
    assert (lower < full - 1e-3).any()
    assert np.isnan(few.columns["max_entropy_upper"]).all()
    fit, held = split_units(few.units, (0.5, 0.5))
    gate = CalibratedGate(
        calibrate(few.take(fit), goal="false-flags", alpha=0.2, score="max_entropy", held_out_share=0.0)
    )
    later = few.take(held)
    found = gate.verdicts(later.columns)
    assert set(found.tolist()) == {VERDICTS.index("pass"), VERDICTS.index("fail")}
    threshold = gate.threshold_of()
    assert np.array_equal(found == VERDICTS.index("pass"), later.columns["max_entropy_lower"] <= threshold)
    kept = guarantees_of_pool(few, "max_entropy", units=80, alpha=0.2, goals=("false-flags",), draws=200)
    assert kept[0].kept
    assert kept[0].pass_rate > 0.3


def test_a_fixed_threshold_stays_undecided(pool, few):
    """What bounds leave open must not count as passed."""
    rule = Thresholds(perplexity=None, entropy=1.0, top_k_entropy=None, surprise=None)
    with_all, bounded = verdicts(pool.columns, rule), verdicts(few.columns, rule)
    passed, failed, undecided = (VERDICTS.index(name) for name in ("pass", "fail", "undecided"))
    assert set(bounded.tolist()) == {failed, undecided}
    assert (with_all[bounded == failed] == failed).all()
    assert (bounded[with_all == passed] == undecided).all()


def test_five_candidates_lose_little(pool, few):
    """Truncation that cost much of a score's power would have to be said in every certificate."""
    both = [evaluate_scores(one, ["max_entropy", "msp"], replicates=200) for one in (pool, few)]
    whole, cut = (report.scores[0].auroc.value for report in both)
    assert whole is not None
    assert cut is not None
    assert abs(whole - cut) < 0.03
    assert both[0].scores[1].auroc == both[1].scores[1].auroc
    assert np.isnan(few.columns["mean_self_certainty"]).all()
