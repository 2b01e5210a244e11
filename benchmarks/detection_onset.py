"""Where a text goes wrong: signals of single tokens, and alarms on the way; see detection.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from detection_answers import Answers, Array, is_test, starts_of

from cert.core.errors import InfeasibleError
from cert.reference.recall import ENERGY_THRESHOLDS
from cert.reference.templates import VALUE_SLOT, Templates, load_templates
from cert.reference.world import Fact, World
from cert.signals import analyze_steps, energy, step_signals
from cert.trajectory.calibration.goals import find_threshold
from cert.trajectory.calibration.scores import SCORES
from cert.trajectory.evaluation.bootstrap import clustered_auroc
from cert.trajectory.evaluation.shares import clustered_share

ALPHAS: Final = (0.05, 0.1, 0.2)
RISING: Final = tuple(name for name, score in SCORES.items() if score.path is not None)
"""Scores that an alarm can watch."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value in a generated text: its first token and the one behind its last, and whether it is true."""

    first: int
    end: int
    right: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One text about one person.

    Attributes:
        values: those that it states, in order.
        whole: whether all of its sentences are of a wording that the world has.
    """

    values: tuple[Value, ...]
    whole: bool

    @property
    def onset(self) -> Value | None:
        """The first false value."""
        return next((value for value in self.values if not value.right), None)

    @property
    def judged(self) -> bool:
        """Whether it is known if the run is right: a false value makes it wrong, whatever comes behind."""
        return self.whole or self.onset is not None


def read_runs(answers: Answers) -> list[Run]:
    """Return what all texts that go on state."""
    starts = starts_of(answers.runs.lengths)
    columns = (answers.facts, answers.runs.texts, starts, answers.runs.lengths)
    return [
        read_run(fact, answers.world, text, answers.runs.offsets[start : start + length])
        for fact, text, start, length in zip(*columns, strict=True)
    ]


def read_run(fact: Fact, world: World, text: str, offsets: Array) -> Run:
    """Find the values that a text states of a person and hold them against the world.

    Args:
        fact: whose held-out sentence, up to its value, the text goes on from.
        world: the truth.
        text: what was generated.
        offsets: (T, 2) of its tokens.
    """
    asked = fact.sentence_prefix()
    full, place, values = asked + text, 0, []
    ends = offsets[:, 1] + len(asked)
    wordings = _wordings(fact, load_templates(fact.templates_version))
    while place < len(full):
        known = [one for one in wordings if full.startswith(one[0], place)]
        if not known:
            return Run(tuple(values), whole=False)
        before, after, attribute = max(known, key=lambda one: len(one[0]))
        start = place + len(before) + 1
        stop = full.find(after, start)
        if stop < 0:
            return Run(tuple(values), whole=False)
        first, end = (int(found) for found in np.searchsorted(ends, [start, stop], side="right"))
        right = full[start:stop] == world.fact(fact.person.name, attribute).value
        values.append(Value(first, max(end, first + 1), right))
        place = stop + len(after) + 1
    return Run(tuple(values), whole=True)


def _wordings(fact: Fact, templates: Templates) -> list[tuple[str, str, str]]:
    """Return what stands before and behind the value in each wording, and the attribute."""
    found = []
    for attribute, worded in templates.attributes.items():
        for sentence in (*worded.sentences, worded.held_out_sentence):
            before, _, after = sentence.partition(VALUE_SLOT)
            found.append((before.format(name=fact.person.name), after, attribute))
    return found


def token_scores(answers: Answers) -> dict[str, Array]:
    """Return the signals of every token of the runs, turned so that larger is worse."""
    step = step_signals(answers.runs.steps)
    return {
        "surprisal": step.surprisal,
        "entropy": step.entropy_upper,
        "top_k_entropy": step.top_k_entropy,
        "top_probability": -step.top_probability,
        "margin": -step.margin,
        "logprob_margin": -step.logprob_margin,
        "self_certainty": -step.self_certainty,
        "confidence": -step.confidence,
        "energy": energy(step.surprisal, step.entropy_upper, **ENERGY_THRESHOLDS),
    }


def onset_report(answers: Answers, replicates: int) -> dict[str, Any]:
    """Return how well the signals of tokens find the first false value, and what alarms do."""
    starts = starts_of(answers.runs.lengths)
    runs = read_runs(answers)
    seen = ~answers.never_seen
    judged = seen & np.array([run.judged for run in runs])
    test = judged & np.array([is_test(fact) for fact in answers.facts])
    several = [len(runs[place].values) for place in np.flatnonzero(judged)]
    return {
        "runs": int(seen.sum()),
        "not_judged": int((seen & ~judged).sum()),
        "values": int(np.sum(several)),
        "runs_with_several_values": int(np.sum(np.array(several) > 1)),
        "tokens_a_run": float(answers.runs.lengths[judged].mean()),
        "wrong_runs": int(sum(runs[place].onset is not None for place in np.flatnonzero(judged))),
        "tokens": _token_level(answers, runs, starts, judged, replicates),
        "alarms": _alarms(answers, runs, starts, judged & ~test, test),
    }


def _token_level(
    answers: Answers, runs: Sequence[Run], starts: Array, judged: Array, replicates: int
) -> dict[str, Any]:
    """AUROC of value starts, of whole values and of all tokens, each up to the first false value."""
    firsts, spans, people, wrong = [], [], [], []
    every, of_false, owner = [], [], []
    for place in np.flatnonzero(judged):
        run, base, person = runs[place], int(starts[place]), answers.facts[place].person.index
        onset = run.onset
        for value in run.values:
            firsts.append(base + value.first)
            spans.append((base + value.first, base + value.end))
            people.append(person)
            wrong.append(not value.right)
            if value is onset:
                break
        last = onset.end if onset else int(answers.runs.lengths[place])
        every += range(base, base + last)
        of_false += [onset is not None and token >= onset.first for token in range(last)]
        owner += [person] * last
    by = {"people": np.array(people), "wrong": np.array(wrong)}
    found: dict[str, Any] = {"values": len(wrong), "false": int(np.sum(wrong)), "tokens": len(every)}
    for name, column in token_scores(answers).items():
        columns = {
            "value_start": (column[firsts], by["wrong"], by["people"]),
            "value_largest": (np.array([column[a:b].max() for a, b in spans]), by["wrong"], by["people"]),
            "value_sum": (np.array([column[a:b].sum() for a, b in spans]), by["wrong"], by["people"]),
            "all_tokens": (column[every], np.array(of_false), np.array(owner)),
        }
        found.setdefault("auroc", {})[name] = {
            level: asdict(clustered_auroc(score, label, units, 0, replicates=replicates))
            for level, (score, label, units) in columns.items()
        }
    return found


def _alarms(
    answers: Answers, runs: Sequence[Run], starts: Array, calibration: Array, test: Array
) -> list[dict[str, Any]]:
    """Calibrate alarms on the runs of some people, and watch those of others."""
    correct = np.array([run.onset is None for run in runs])
    paths = _paths(answers, starts, calibration | test)
    rows = []
    for name in RISING:
        largest = np.array([path[name][-1] if path and len(path[name]) else np.nan for path in paths])
        for alpha in ALPHAS:
            chosen = (largest[calibration], correct[calibration], answers.people[calibration])
            try:
                threshold = find_threshold("streaming", *chosen, alpha=alpha).value
            except InfeasibleError:
                continue
            rows.append(
                {"score": name, "alpha": alpha, "threshold": threshold}
                | _watched(answers, runs, [p and p[name] for p in paths], correct, test, threshold)
            )
    return rows


def _paths(answers: Answers, starts: Array, wanted: Array) -> list[dict[str, Array]]:
    """Return each score of the tokens so far, for every wanted run."""
    found: list[dict[str, Array]] = []
    for place, start in enumerate(starts.tolist()):
        if not wanted[place]:
            found.append({})
            continue
        steps = answers.runs.steps[start : start + int(answers.runs.lengths[place])]
        step, running, _ = analyze_steps(steps)
        found.append({name: _path(name, step, running) for name in RISING})
    return found


def _path(name: str, step: Any, running: Any) -> Array:
    path = SCORES[name].path
    assert path is not None
    return path.running(step, running)


def _watched(
    answers: Answers, runs: Sequence[Run], paths: Sequence[Any], correct: Array, test: Array, threshold: float
) -> dict[str, Any]:
    places = np.flatnonzero(test)
    alarm = np.array([_first_above(paths[place], threshold) for place in places])
    right, people = correct[places], answers.people[places]
    onset = np.array([-1 if (value := runs[place].onset) is None else value.first for place in places])
    end = np.array([-1 if (value := runs[place].onset) is None else value.end for place in places])
    raised = alarm >= 0
    after = ~right & raised & (alarm >= onset)
    delays = alarm[after] - onset[after]
    shares = {
        "false_alarms": clustered_share(raised[right], people[right]),
        "wrong_alarmed": clustered_share(raised[~right], people[~right]),
        "wrong_alarmed_before": clustered_share((raised & (alarm < onset))[~right], people[~right]),
        "wrong_alarmed_within": clustered_share((after & (alarm < end))[~right], people[~right]),
    }
    return {name: asdict(share) for name, share in shares.items()} | {
        "delay_mean": float(delays.mean()) if len(delays) else None,
        "delay_median": float(np.median(delays)) if len(delays) else None,
        "delay_p90": float(np.quantile(delays, 0.9)) if len(delays) else None,
    }


def _first_above(path: Array, threshold: float) -> int:
    above = np.flatnonzero(path > threshold)
    return int(above[0]) if len(above) else -1
