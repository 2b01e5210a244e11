"""Two logs side by side: the same samples, scored by the same scorer, or the reason why they are not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cert.core.errors import InputError
from cert.integrations.inspect_logs.records import InspectLog, Record
from cert.integrations.inspect_logs.values import NOT_SCORED, to_number

__all__ = ["Arm", "Pairing", "pair_logs"]

_NOT_RUN: Final = "not run"
_SHOWN: Final = 5
_GRADED: Final = "model_graded"


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One log's part of a pairing.

    Attributes:
        log: whose.
        scores: (T, R) in [0, 1], samples by epochs, NaN where missing.
        missing: how many are, by reason.
        only_here: samples that the other log was not to run; they are in no array.
    """

    log: InspectLog
    scores: npt.NDArray[np.float64] = field(repr=False)
    missing: Mapping[str, int]
    only_here: int


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """The samples of both logs.

    Attributes:
        scorer, key: which scores.
        samples: T ids, in the order of the baseline.
        baseline, candidate: scores of either.
    """

    scorer: str
    key: str | None
    samples: tuple[str, ...] = field(repr=False)
    baseline: Arm
    candidate: Arm


def pair_logs(
    baseline: InspectLog, candidate: InspectLog, scorer: str | None = None, key: str | None = None
) -> Pairing:
    """Pair the samples of two logs by id, and the epochs of each as its replicates.

    Args:
        baseline: the log that the other one is held against.
        candidate: of the same task on the same dataset.
        scorer: name of the score; may be left out where the logs share one alone.
        key: of the value, for a scorer whose values are objects.

    Raises:
        InputError: task, dataset, samples or scorer differ, nothing is shared, or scores are not on [0, 1].
    """
    _same("tasks", baseline.task, candidate.task)
    _same("versions of the task", baseline.task_version, candidate.task_version)
    _same("datasets", baseline.dataset, candidate.dataset)
    scorer = _chosen(scorer, baseline, candidate)
    _same_instrument(scorer, baseline, candidate)
    there = set(candidate.expected)
    samples = tuple(sample for sample in baseline.expected if sample in there)
    if not samples:
        raise InputError("the logs share no sample")
    _same_samples(samples, baseline, candidate)
    for log in (baseline, candidate):
        _has_key(log, scorer, key)
    return Pairing(
        scorer, key, samples, _arm(baseline, samples, scorer, key), _arm(candidate, samples, scorer, key)
    )


def _same(what: str, first: Any, second: Any) -> None:
    if first != second:
        raise InputError(f"the logs are of different {what}: {str(first)[:80]!r} and {str(second)[:80]!r}")


def _chosen(scorer: str | None, baseline: InspectLog, candidate: InspectLog) -> str:
    names = [log.score_names for log in (baseline, candidate)]
    shared = [name for name in names[0] if name in names[1]]
    told = "; ".join(
        f"'{log.path}' has {', '.join(has) or 'no scores'}"
        for log, has in zip((baseline, candidate), names, strict=True)
    )
    if scorer is not None and scorer not in shared:
        raise InputError(f"not both logs have scores of '{scorer[:80]}': {told}")
    if not shared:
        raise InputError(f"the logs share no scorer: {told}")
    if scorer is None and len(shared) > 1:
        raise InputError(f"the logs share several scorers: name one of {', '.join(shared)}")
    return scorer or shared[0]


def _same_instrument(scorer: str, baseline: InspectLog, candidate: InspectLog) -> None:
    """Refuse scorers that are set in different ways, or ask different models.

    Without a model of its own, Inspect's model-graded scorers ask the role ``grader``, and without that the
    very model that is evaluated.
    """
    first, second = (_settings(log, scorer) for log in (baseline, candidate))
    if first is None or second is None:
        return
    if first != second:
        raise InputError(
            f"the scorer '{scorer[:80]}' is set in different ways: {_cut(first)} and {_cut(second)}"
        )
    if scorer.startswith(_GRADED) and not any(options.get("model") for _, options in first):
        graders = [log.roles.get("grader") or log.model for log in (baseline, candidate)]
        if graders[0] != graders[1]:
            raise InputError(
                f"the scorer '{scorer[:80]}' asks another model in each log: {_cut(graders[0])} and "
                f"{_cut(graders[1])}",
                hint="score both logs with one grader: inspect score --model-role grader=MODEL",
            )


def _settings(log: InspectLog, scorer: str) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Return how a scorer is set; of a log with several of one name, which it numbers, how all are."""
    if log.scorers is None:
        return None
    named = [one for one in log.scorers if one[0].rpartition("/")[2] == scorer]
    return named or list(log.scorers)


def _same_samples(samples: Sequence[str], baseline: InspectLog, candidate: InspectLog) -> None:
    first, second = (
        {sample: record.asked for (sample, _), record in log.records.items()} for log in (baseline, candidate)
    )
    differ = [
        sample
        for sample in samples
        if sample in first and sample in second and first[sample] != second[sample]
    ]
    if differ:
        shown = ", ".join(f"'{sample[:40]}'" for sample in differ[:_SHOWN])
        raise InputError(
            f"the logs are of different datasets: of {len(samples):,} samples {len(differ):,} have another "
            f"input or target, such as {shown}"
        )


def _has_key(log: InspectLog, scorer: str, key: str | None) -> None:
    values = [record.scores[scorer] for record in log.records.values() if scorer in record.scores]
    if any(isinstance(value, list) for value in values):
        raise InputError(f"the values of '{scorer[:80]}' are lists in '{log.path}', which are not compared")
    keys = dict.fromkeys(name for value in values if isinstance(value, dict) for name in value)
    if key is None and keys:
        raise InputError(f"a score of '{scorer[:80]}' has several values: name one of {_cut(list(keys))}")
    if key is not None and key not in keys:
        told = f"only {_cut(list(keys))}" if keys else "no keys"
        raise InputError(f"the values of '{scorer[:80]}' have no '{key[:80]}' in '{log.path}': {told}")


def _arm(log: InspectLog, samples: Sequence[str], scorer: str, key: str | None) -> Arm:
    scores = np.full((len(samples), log.epochs), math.nan)
    missing: Counter[str] = Counter()
    for row, sample in enumerate(samples):
        for epoch in range(1, log.epochs + 1):
            found = _number(log.records.get((sample, epoch)), scorer, key)
            if isinstance(found, str):
                missing[found] += 1
                continue
            if not 0.0 <= found <= 1.0:
                raise InputError(
                    f"scores of '{scorer[:80]}' are not on 0 to 1: sample '{sample[:80]}' has {found:g} in "
                    f"'{log.path}'"
                )
            scores[row, epoch - 1] = found
    return Arm(log, scores, dict(missing), len(log.expected) - len(samples))


def _number(record: Record | None, scorer: str, key: str | None) -> float | str:
    if record is None:
        return _NOT_RUN
    if record.lost is not None:
        return record.lost
    if scorer not in record.scores:
        return NOT_SCORED
    value = record.scores[scorer]
    if key is not None and isinstance(value, dict):
        value = value.get(key)
    return to_number(value)


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
