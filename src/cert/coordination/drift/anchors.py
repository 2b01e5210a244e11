"""A frozen set of answers with the scores that the judge first gave them: what the judge is measured on.

The same answers, scored again, differ from their first scores by the judge's noise alone, unless the judge
has changed. The first scores are made when the set is frozen and never taken from earlier judgements: answers
chosen for a high score would seem to fall when they are scored again (regression to the mean).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from cert.coordination.statistics.inference import difference
from cert.coordination.statistics.pairs import pair
from cert.coordination.types import Interval, Task
from cert.core.errors import InputError

__all__ = ["FEWEST_ANCHORS", "Anchor", "AnchorSet", "Shift", "judge_shift"]

FEWEST_ANCHORS: Final = 10
_LEAST_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Anchor:
    """An answer that is scored again and again.

    Attributes:
        task: that it answers.
        answer: untrusted text.
        score: the first, in [0, 1].
    """

    task: Task
    answer: str
    score: float


@dataclass(frozen=True, slots=True)
class AnchorSet:
    """The frozen answers of one system and family.

    Attributes:
        anchors: `FEWEST_ANCHORS` at least.
        evaluator: who scored them, by identity; another judge has another scale.
        frozen_at: seconds since 1970, UTC.

    Raises:
        InputError: too few anchors, or a score outside [0, 1].
    """

    anchors: tuple[Anchor, ...]
    evaluator: str
    frozen_at: float

    def __post_init__(self) -> None:
        if len(self.anchors) < FEWEST_ANCHORS:
            raise InputError(
                f"a set of anchors has {FEWEST_ANCHORS} scored answers at least, not {len(self.anchors)}",
                hint="With fifty, a judge that moved by its own noise is found in most cases.",
            )
        if not all(0.0 <= anchor.score <= 1.0 for anchor in self.anchors):
            raise InputError("a score is in [0, 1]")

    @property
    def sha256(self) -> str:
        """Of everything in it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return it as JSON, the same text for the same set.

        Raises:
            InputError: the metadata of a task are not JSON.
        """
        try:
            # The metadata may be any mapping, which `asdict` would not make a dictionary.
            anchors = [asdict(anchor) | {"task": _task_fields(anchor.task)} for anchor in self.anchors]
            told = {"anchors": anchors, "evaluator": self.evaluator, "frozen_at": self.frozen_at}
            return json.dumps(told, sort_keys=True, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise InputError(f"the metadata of an anchor's task are not JSON: {error}") from error

    @classmethod
    def of_json(cls, text: str) -> AnchorSet:
        """Return the set that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        told = json.loads(text)
        anchors = tuple(
            Anchor(_task_of(one["task"]), str(one["answer"]), float(one["score"])) for one in told["anchors"]
        )
        return cls(anchors, str(told["evaluator"]), float(told["frozen_at"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far a judge's scores of the anchors are from the first ones.

    Attributes:
        value: mean of new − first score, in [−1, 1]; negative is a stricter judge.
        interval: of it, clustered by the tasks' sources.
        anchors: that have both scores.
        missing: those that were not scored this time.
    """

    value: float
    interval: Interval
    anchors: int
    missing: int

    @property
    def moved(self) -> bool:
        """Whether 0 is outside the interval."""
        return not self.interval.low <= 0.0 <= self.interval.high


def judge_shift(frozen: AnchorSet, scores: Sequence[float | None], level: float) -> Shift | None:
    """Return the shift of the judge.

    Args:
        frozen: the anchors.
        scores: of each anchor, now; ``None`` is missing.
        level: of the interval.

    Returns:
        ``None`` where less than four fifths of the anchors, or fewer than `FEWEST_ANCHORS`, were scored: what
        a judge leaves out is no sample of the rest.
    """
    new = np.array([math.nan if score is None else score for score in scores])
    first = np.array([anchor.score for anchor in frozen.anchors])
    measured = int(np.isfinite(new).sum())
    if measured < max(FEWEST_ANCHORS, math.ceil(_LEAST_SHARE * len(first))):
        return None
    sources: list[Hashable] = [anchor.task.source or ("task", anchor.task.id) for anchor in frozen.anchors]
    found = difference(pair(new, first, sources), level)
    assert found.value is not None
    return Shift(value=found.value, interval=found.interval, anchors=measured, missing=len(first) - measured)


def _task_fields(task: Task) -> dict[str, Any]:
    return {
        "text": task.text,
        "id": task.id,
        "references": list(task.references),
        "family": task.family,
        "source": task.source,
        "metadata": dict(task.metadata),
    }


def _task_of(fields: Mapping[str, Any]) -> Task:
    return Task(**{**fields, "references": tuple(fields["references"])})
