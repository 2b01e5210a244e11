"""What is known of one system on one family of tasks: a value, and what each score makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from cert.coordination.drift.anchors import AnchorSet, Shift, judge_shift
from cert.coordination.drift.attribution import FEWEST_AFTER, Kind, Moments, told_apart
from cert.coordination.statistics.drift import DropDetector, DropState
from cert.coordination.types import Interval
from cert.core.bounds import share
from cert.core.errors import ConfigurationError, InputError

__all__ = ["Acknowledgement", "Alarm", "Check", "Phase", "Plan", "Series"]

Phase: TypeAlias = Literal["reference", "watching"]

_SMALLEST_REFERENCE = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is watched for, and how often it may be wrong.

    Attributes:
        reference: scores of the reference phase, while the system is known to be well; 30 at least.
        drop: of the mean score, that is to be found.
        horizon: scores after the reference phase over which false alarms are counted.
        false_alarms: P(the detector alarms in the horizon) though neither system nor judge changed.
        checks: re-scorings of the anchors that are planned for the horizon.
        judge_alarms: P(any of them calls a judge changed) of one that is not.

    Raises:
        ConfigurationError: a value that cannot be right.
    """

    reference: int = 200
    drop: float = 0.08
    horizon: int = 1000
    false_alarms: float = 0.05
    checks: int = 20
    judge_alarms: float = 0.05

    def __post_init__(self) -> None:
        for name in ("drop", "false_alarms", "judge_alarms"):
            share(name, getattr(self, name))
            if getattr(self, name) >= 1.0:
                raise ConfigurationError(f"{name} is below 1", context={"setting": name})
        for name, least in (("reference", _SMALLEST_REFERENCE), ("horizon", 1), ("checks", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a whole number of {least} or more",
                    context={"setting": name},
                )

    @property
    def check_every(self) -> int:
        """Scores from one check to the next."""
        return max(1, self.horizon // self.checks)

    @property
    def check_level(self) -> float:
        """Of the intervals of one check."""
        return 1.0 - self.judge_alarms / self.checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something changed. It stays until it is acknowledged.

    Attributes:
        kind: who did, as far as it is known.
        raised_at: seconds since 1970, UTC.
        fell_at: scores seen when the detector alarmed; ``None`` where only the judge moved.
        reason: why it is unclear, else ``None``.
    """

    kind: Kind
    raised_at: float
    fell_at: int | None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Who has taken an alarm off, and when.

    Attributes:
        by: who; ``None`` where nobody said.
        at: seconds since 1970, UTC.
        kind: of the alarm.
        raised_at: of the alarm.
    """

    by: str | None
    at: float
    kind: Kind
    raised_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The anchors, scored again.

    Attributes:
        number: 1 for the first since the promise of the plan began.
        seen: scores of the system until then.
        at: seconds since 1970, UTC.
        scores: of each anchor, ``None`` where it is missing.
        shift: of the judge; ``None`` where too few anchors could be scored.
        kind: who changed; ``None`` where nothing did.
        reason: why it is unclear or not measured, else ``None``.
        change, interval: of the system's own, where it is measured.
        cost_micro_dollars: what scoring the anchors cost.
    """

    number: int
    seen: int
    at: float
    scores: tuple[float | None, ...]
    shift: Shift | None
    kind: Kind | None
    reason: str | None
    change: float | None
    interval: Interval | None
    cost_micro_dollars: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The scores of one system on one family, as far as they matter.

    Attributes:
        plan: that it was begun with.
        evaluator: whose scores these are; ``None`` as long as nobody has said.
        reference: the scores of the reference phase.
        reference_missing: those that were missing in it.
        attempt_at: how long the reference has to be before it is calibrated on.
        waiting: why a complete reference was not good enough, else ``None``.
        detector: after the reference phase.
        state: of the detector.
        after: the scores since its alarm.
        checks: re-scorings since the promise of the plan began.
        check: the last of them.
        alarm: that stands.
        acknowledged: alarms before.
        acknowledgement: of the last of them; ``None`` where there was none, or before who was kept.
    """

    plan: Plan
    evaluator: str | None = None
    reference: tuple[float, ...] = ()
    reference_missing: int = 0
    attempt_at: int = 0
    waiting: str | None = None
    detector: DropDetector | None = None
    state: DropState = field(default_factory=DropState)
    after: Moments = field(default_factory=Moments)
    checks: int = 0
    check: Check | None = None
    alarm: Alarm | None = None
    acknowledged: int = 0
    acknowledgement: Acknowledgement | None = None

    @property
    def phase(self) -> Phase:
        """Whether a change would be found already."""
        return "reference" if self.detector is None else "watching"

    @property
    def check_due(self) -> bool:
        """Whether to score the anchors again: at intervals, and where that may tell an alarm apart."""
        if self.detector is None:
            return False
        if self.checks < self.state.seen // self.plan.check_every:
            return True
        if self.alarm is None or self.alarm.kind != "unclear" or self.alarm.fell_at is None:
            return False
        last = -1 if self.check is None else self.check.seen - self.alarm.fell_at
        return last < 0 or last < FEWEST_AFTER <= self.after.n

    def fed(self, score: float | None, at: float) -> Series:
        """Return the series after one more score; ``None`` or NaN is missing, counted and not fed.

        Raises:
            InputError: the score is outside [0, 1].
        """
        missing = score is None or math.isnan(score)
        if not missing and not 0.0 <= float(score or 0.0) <= 1.0:
            raise InputError(f"a score is in [0, 1], or None where it is missing, not {score}")
        if self.detector is not None:
            return self._watched(self.detector, None if missing else score, at)
        if score is None or missing:
            return replace(self, reference_missing=self.reference_missing + 1)
        return replace(self, reference=(*self.reference, float(score)))._calibrated()

    def checked(
        self, frozen: AnchorSet, scores: tuple[float | None, ...], at: float, cost_micro_dollars: int = 0
    ) -> Series:
        """Return the series after its anchors were scored again."""
        shift = judge_shift(frozen, scores, self.plan.check_level)
        fell = self.state.alarm_at is not None
        found = told_apart(self.plan.drop, self.reference, self.after, shift, fell=fell)
        check = Check(
            number=self.checks + 1,
            seen=self.state.seen,
            at=at,
            scores=scores,
            shift=shift,
            kind=found.kind,
            reason=found.reason,
            change=found.change,
            interval=found.interval,
            cost_micro_dollars=cost_micro_dollars,
        )
        return replace(self, checks=check.number, check=check, alarm=self._alarm_after(check))

    def calmed(self, by: str | None, at: float) -> Series:
        """Return the series with its alarm acknowledged: the promise of the plan begins anew.

        Args:
            by: who has seen it.
            at: seconds since 1970, UTC.
        """
        if self.alarm is None:
            return self
        return replace(
            self,
            state=DropState(),
            after=Moments(),
            checks=0,
            check=None,
            alarm=None,
            acknowledged=self.acknowledged + 1,
            acknowledgement=Acknowledgement(
                by=by, at=at, kind=self.alarm.kind, raised_at=self.alarm.raised_at
            ),
        )

    def _calibrated(self) -> Series:
        length = len(self.reference)
        if length < max(self.plan.reference, self.attempt_at):
            return self
        plan = self.plan
        try:
            detector = DropDetector.calibrate(self.reference, plan.drop, plan.horizon, plan.false_alarms)
        except InputError as error:
            return replace(self, attempt_at=length + math.ceil(length / 2), waiting=error.message)
        return replace(self, detector=detector, waiting=None)

    def _watched(self, detector: DropDetector, score: float | None, at: float) -> Series:
        fell = self.state.alarm_at is not None
        state = detector.update(self.state, score)
        after = self.after + score if fell and score is not None else self.after
        alarm = self.alarm
        if state.alarm_at is not None and not fell:
            reason = "the anchors were not scored since"
            alarm = Alarm(kind="unclear", raised_at=at, fell_at=state.alarm_at, reason=reason)
        return replace(self, state=state, after=after, alarm=alarm)

    def _alarm_after(self, check: Check) -> Alarm | None:
        """Return the alarm. Who was named once stays named: later scores and judges are others."""
        alarm = self.alarm
        if check.kind is None:
            return alarm
        if alarm is None:
            return Alarm(kind=check.kind, raised_at=check.at, fell_at=None, reason=check.reason)
        if check.kind == "unclear" and alarm.kind != "unclear":
            return alarm
        if alarm.kind in ("unclear", check.kind):
            return replace(alarm, kind=check.kind, reason=check.reason)
        return replace(alarm, kind="both")
