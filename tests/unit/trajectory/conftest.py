"""Gates for tests: certificates over made data whose threshold is where a test wants it."""

from typing import Any

import numpy as np
import pytest

from cert.signals import GenerationSignals
from cert.trajectory.calibration.calibrate import calibrate
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import LabelledData
from cert.trajectory.calibration.scores import SCORES


def _labelled(
    scores: Any, correct: Any = None, *, score: str = "msp", groups: Any = None, units: Any = None
) -> LabelledData:
    """Return data whose answers have these scores; all of them right by default."""
    scores = np.asarray(scores, dtype=np.float64)
    n = len(scores)
    column = SCORES[score].column
    assert column in GenerationSignals.__dataclass_fields__
    return LabelledData(
        ids=tuple(map(str, range(n))),
        correct=np.ones(n, dtype=np.bool_) if correct is None else np.asarray(correct, dtype=np.bool_),
        columns={column: SCORES[score].sign * scores},
        units=np.arange(n) if units is None else np.asarray(units),
        groups=None if groups is None else np.asarray(groups),
    )


def _gate_at(
    threshold: float, *, goal: Any = "streaming", score: str = "msp", alpha: float = 0.05, n: int = 60
) -> CalibratedGate:
    """Return a gate whose threshold is exactly this: all scores of its calibration are equal."""
    data = _labelled(np.full(n, threshold), np.arange(n) % 2 == 0 if goal == "misses" else None, score=score)
    gate = CalibratedGate(calibrate(data, goal=goal, alpha=alpha, score=score))
    assert gate.certificate.threshold is not None
    assert gate.certificate.threshold.value == threshold
    return gate


@pytest.fixture(scope="session")
def labelled():
    """The function that makes labelled answers."""
    return _labelled


@pytest.fixture(scope="session")
def gate_at():
    """The function that makes a gate with a given threshold."""
    return _gate_at
