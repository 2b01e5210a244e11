"""An alarm while a generation runs: the score so far against a threshold that was found on whole answers.

A score that only rises on the way (`RunningPath`) is above λ at the end if it was above λ at any token. So
where λ is calibrated on the whole runs of correct answers, P(ever alarmed given correct) ≤ α holds whenever
one looks and whenever one stops: conformal prediction on the running maximum. `max_cusum` makes it a CUSUM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from cert.core.errors import ConfigurationError
from cert.core.visible import label
from cert.signals import SignalOptions, TokenSteps, step_signals
from cert.signals.bounds import TopSums
from cert.signals.steps import FloatArray
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.goals.types import Threshold
from cert.trajectory.calibration.scores import GateScore, RunningPath, path_of

__all__ = ["AlarmStatus", "StreamingAlarm", "alarm_of"]

AlarmStatus: TypeAlias = Literal["quiet", "alarm", "not_measured"]
_Running: TypeAlias = Callable[[float], float]

# Far more than what two ways to reckon one number differ by, and a surprisal that overflows nothing.
_ROUNDING: Final = 1.0e-9
_HUGE: Final = 700.0
_SINGLE: Final = 1.0e-2


class StreamingAlarm:
    """Follows one generation, O(1) work a token, and says at which token it should have been stopped.

    The running value has the bits of the score of the tokens so far, whatever blocks they come in. A token
    that was not measured leaves everything after it not measured: such a run is never taken for a quiet one.

    Args:
        score: one that only rises on the way.
        threshold: λ, or the threshold that a calibration gave.
        options: what the signals depend on besides the steps; those that the threshold was found with.

    Attributes:
        threshold: λ.
        alarm_at: index of the first token, counted from 0, at which the score was above λ; ``None`` without.
        not_measured_at: index of the first token that was not measured; ``None`` without.
        running: the score of the tokens so far; NaN before the first and where one was not measured.
        seen: the tokens so far.

    Raises:
        ConfigurationError: the score may fall again, or the threshold is of another goal or no number.
    """

    __slots__ = (
        "_columns",
        "_next",
        "_value",
        "alarm_at",
        "not_measured_at",
        "running",
        "score",
        "seen",
        "threshold",
    )

    def __init__(
        self, score: GateScore, threshold: float | Threshold, options: SignalOptions | None = None
    ) -> None:
        path = path_of(score)
        if isinstance(threshold, Threshold):
            if threshold.goal != "streaming":
                raise ConfigurationError(
                    f"a threshold for the goal '{threshold.goal}' promises nothing of alarms on the way",
                    hint="calibrate one for the goal 'streaming'",
                )
            threshold = threshold.value
        if math.isnan(threshold):
            raise ConfigurationError("the threshold of an alarm is a number, not NaN")
        options = options or SignalOptions()
        self.score = score
        self.threshold = threshold
        self.alarm_at: int | None = None
        self.not_measured_at: int | None = None
        self.running = math.nan
        self.seen = 0
        self._columns, self._value = _READERS[path.column]
        self._next = _running(path, options)

    @property
    def status(self) -> AlarmStatus:
        """``alarm`` once there was one; else ``not_measured`` once a token was not; else ``quiet``."""
        if self.alarm_at is not None:
            return "alarm"
        return "quiet" if self.not_measured_at is None else "not_measured"

    def update(self, steps: TokenSteps) -> bool:
        """Take the next tokens and say whether the alarm was raised, now or before."""
        if len(steps):
            for value in self._columns(steps).tolist():
                self._take(value)
        return self.alarm_at is not None

    def take(self, values: Sequence[float]) -> bool:
        """Do the same for one token of a full distribution; see `cert.backends.control.Follower`."""
        self._take(self._value(values, self.running))
        return self.alarm_at is not None

    def _take(self, value: float) -> None:
        running = self.running = self._next(value)
        if running > self.threshold:
            if self.alarm_at is None:
                self.alarm_at = self.seen
        elif math.isnan(running) and self.not_measured_at is None:
            self.not_measured_at = self.seen
        self.seen += 1


def alarm_of(
    gate: CalibratedGate | None, group: str | None = None, options: SignalOptions | None = None
) -> StreamingAlarm:
    """Return the alarm of a gate for one generation.

    Args:
        gate: whose certificate is for the goal ``streaming``.
        group: of the answer, for a certificate with groups.
        options: what the signals depend on besides the steps.

    Raises:
        ConfigurationError: there is no gate, its certificate promises nothing of alarms on the way, or it has
            no threshold for the group.
    """
    hint = "calibrate one: cert calibrate DATA --goal streaming"
    if gate is None:
        raise ConfigurationError("an early stop needs a gate with a certificate", hint=hint)
    if gate.certificate.goal != "streaming":
        raise ConfigurationError(
            f"the certificate is for the goal '{gate.certificate.goal}', which promises nothing of alarms on "
            "the way",
            hint=hint,
        )
    threshold = gate.threshold_of(group)
    if threshold is None:
        raise ConfigurationError(
            f"the certificate has no threshold for {'no group' if group is None else label(group)}",
            hint=f"one of {', '.join(map(label, gate.certificate.groups or ()))}",
        )
    return StreamingAlarm(gate.score, threshold, options)


# --- what each token adds: with the bits of `cert.signals.step_signals`, and no more work than that takes ---


def _surprisal(steps: TokenSteps) -> FloatArray:
    return np.maximum(-steps.logprob, 0.0) + 0.0


def _perplexity(steps: TokenSteps) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(_surprisal(steps)))


def _entropy(steps: TokenSteps) -> FloatArray:
    if np.isnan(steps.entropy).any():
        return step_signals(steps).entropy_lower
    return steps.entropy + 0.0


def _top_k_entropy(steps: TokenSteps) -> FloatArray:
    return step_signals(steps).top_k_entropy


def _negative_margin(steps: TokenSteps) -> FloatArray:
    return np.asarray(-step_signals(steps).margin + 0.0)


# Of one token: array routines, whose last bits count, are asked only where a value may be a new largest one.


def _surprisal_of(values: Sequence[float], _largest: float) -> float:
    surprisal = -values[0]
    return 0.0 if surprisal <= 0.0 else surprisal


def _perplexity_of(values: Sequence[float], largest: float) -> float:
    surprisal = _surprisal_of(values, largest)
    if surprisal < _HUGE and math.exp(surprisal) * (1.0 + _ROUNDING) < largest:
        return 1.0
    with np.errstate(over="ignore"):
        return float(np.exp(np.float64(surprisal)))


def _entropy_of(values: Sequence[float], _largest: float) -> float:
    return values[1] + 0.0


def _top_k_entropy_of(values: Sequence[float], largest: float) -> float:
    if len(values) < 4:
        return math.nan
    if not math.isnan(values[3] + values[-1]):
        # The candidates' part of the entropy is at most the whole, which is known in single precision.
        if values[1] + _SINGLE < largest:
            return 0.0
        about = -sum([math.exp(value) * value for value in values[3:] if value > -_HUGE])
        if about + _ROUNDING < largest:
            return 0.0
    column = np.array(values[3:])[:, None]
    return float(TopSums.of(column, np.exp(column)).entropy[0])


def _negative_margin_of(values: Sequence[float], largest: float) -> float:
    if len(values) < 5:
        return math.nan
    if math.exp(values[4]) - math.exp(values[3]) + _ROUNDING < largest:
        return -1.0
    first, second = np.exp(np.array(values[3:5])).tolist()
    return -float(first - second) + 0.0


_Reader: TypeAlias = tuple[Callable[[TokenSteps], FloatArray], Callable[[Sequence[float], float], float]]
_READERS: Final[Mapping[str, _Reader]] = {
    "surprisal": (_surprisal, _surprisal_of),
    "cumulative_surprise": (_surprisal, _surprisal_of),
    "cusum": (_surprisal, _surprisal_of),
    "perplexity": (_perplexity, _perplexity_of),
    "entropy_lower": (_entropy, _entropy_of),
    "top_k_entropy": (_top_k_entropy, _top_k_entropy_of),
    "margin": (_negative_margin, _negative_margin_of),
}


# --- how it adds up: with the bits of `cert.signals.SignalStream` ---


def _running(path: RunningPath, options: SignalOptions) -> _Running:
    if path.column == "cumulative_surprise":
        return _Surprise(-math.log(options.surprise_probability))
    if path.column == "cusum":
        return _Cusum(options.cusum_drift)
    return _Sum() if path.accumulate == "sum" else _Largest()


class _Sum:
    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0.0

    def __call__(self, value: float) -> float:
        self._value += value
        return self._value


class _Largest:
    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = -math.inf

    def __call__(self, value: float) -> float:
        # NaN stays: nothing is larger than it, and it is larger than nothing.
        if value > self._value or math.isnan(value):
            self._value = value
        return self._value


class _Surprise(_Sum):
    __slots__ = ("_floor",)

    def __init__(self, floor: float) -> None:
        super().__init__()
        self._floor = floor

    def __call__(self, value: float) -> float:
        return super().__call__(0.0 if value <= self._floor else value)


class _Cusum:
    __slots__ = ("_drift", "_floor", "_largest", "_walk")

    def __init__(self, drift: float) -> None:
        self._drift = drift
        self._walk = self._floor = 0.0
        self._largest = _Largest()

    def __call__(self, value: float) -> float:
        walk = self._walk = self._walk + (value - self._drift)
        self._floor = min(self._floor, walk)
        return self._largest(walk - self._floor)
