"""Whether a gate's promise still stands: it holds while answers come as those of the calibration did.

Two questions, asked of every answer and valid however often and however long one looks:

- *Do the scores still come as they did?* Needs no labels (`ShiftTest`). A yes to a shift is a warning. What
  leaves the scores as they are, and makes right answers wrong, it cannot see.
- *Is the promised rate above α?* Needs labels (`risk_bound`). A yes makes the promise void.
"""

from __future__ import annotations

import math
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from cert.core.errors import ConfigurationError, InputError
from cert.core.events import EventHub, GateShifted, GateStanding, PromiseVoid, default_hub
from cert.core.health_probe import Finding
from cert.trajectory.calibration.bins import Bins, uniform
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.goals.types import Goal
from cert.trajectory.calibration.risk_bound import by_luck, log_capital, lower_bound
from cert.trajectory.calibration.shift import ShiftTest
from cert.trajectory.calibration.watch_state import read_state, state_text

__all__ = ["GateWatch", "RiskStatus", "WatchState", "WatchStatus"]

WatchState: TypeAlias = Literal["standing", "shifted", "void"]

# Of a stopped run no more is known than that its score is above λ. Then bins end at one of these shares of
# the ranks, and a test whose bins go on above λ counts as lost: that keeps the level.
_ENDS: Final = (0.5, 0.7, 0.8, 0.9)
_ALL: Final = ""


@dataclass(frozen=True, slots=True)
class RiskStatus:
    """What labels say of the promised rate.

    Attributes:
        group: of the certificate; ``None`` for all answers together.
        counted: labelled answers that the rate is of, such as those that passed.
        events: those of them that it counts, such as wrong ones.
        rate: the share; NaN without an answer.
        bound: the lower confidence bound: the rate is above it, at every time at once, but for a chance of
            the watch's risk level.
        by_luck: how often a calibration alone, with nothing changed since, gives a rate as high as the bound;
            ``None`` where that has no known law.
    """

    group: str | None
    counted: int
    events: int
    rate: float
    bound: float
    by_luck: float | None


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """Where a watched gate stands.

    Attributes:
        state: ``void`` if labels have refuted the promise; else ``shifted`` if scores come otherwise than at
            the calibration; else ``standing``, which is no proof that nothing changed.
        certificate: its id.
        goal, alpha: of its promise.
        seen: scores without labels so far; since the last warning was taken off, as the next three are.
        not_measured: those of them that were not measured.
        evidence: against "they come as at the calibration": a capital that fair bets have made of 1. It ever
            reaches 1 / shift level with a probability of the shift level.
        shifted_at: scores seen when it first did; ``None`` while it has not.
        watched: whether scores can be compared at all.
        labels: answers with a label.
        risks: all together, and each group of the certificate.
        void_at: labels when the promise was refuted; ``None`` while it was not.
    """

    state: WatchState
    certificate: str
    goal: Goal
    alpha: float
    seen: int
    not_measured: int
    evidence: float
    shifted_at: int | None
    watched: bool
    labels: int
    risks: tuple[RiskStatus, ...]
    void_at: int | None


class GateWatch:
    """Watches the promise of one gate, for any number of threads.

    Args:
        gate: the gate.
        shift_level: P(ever a warning of a shift) while the scores are exchangeable with those of the
            calibration.
        risk_level: P(ever void) while the gate's own rate is at most α.
        hub: hears of warnings and refutations.
        seed: decides the order among equal scores; drawn by default.

    Raises:
        ConfigurationError: a level that is no probability.
    """

    def __init__(
        self,
        gate: CalibratedGate,
        *,
        shift_level: float = 0.01,
        risk_level: float = 0.05,
        hub: EventHub | None = None,
        seed: int | None = None,
    ) -> None:
        for name, level in (("shift_level", shift_level), ("risk_level", risk_level)):
            if not 0.0 < level < 1.0:
                raise ConfigurationError(f"{name} is a probability above 0 and below 1, not {level}")
        self.gate = gate
        self.shift_level, self.risk_level = shift_level, risk_level
        self._seed = secrets.randbits(53) if seed is None else seed
        self._hub = hub or default_hub()
        self._lock = threading.Lock()
        self._bins = self._all_bins()
        self._tests = [None if bins is None else ShiftTest(bins.gaps) for bins in self._bins]
        self._drawn = 0
        self._seen = self._not_measured = self._labels = 0
        self._shifted_at: int | None = None
        self._void_at: int | None = None
        groups = sorted(gate.certificate.groups or {})
        self._risks: dict[str, list[int]] = {name: [0, 0] for name in (_ALL, *groups)}
        self._bounds = dict.fromkeys(self._risks, 0.0)

    # --- what it is told ---

    def observe(self, score: float) -> None:
        """Take the score of a live answer, in the order in which they come; NaN is not measured.

        Answers about one thing are dependent: of several about it in a row tell one.
        """
        with self._lock:
            self._seen += 1
            self._not_measured += math.isnan(score)
            chance = uniform(self._seed, self._drawn)
            self._drawn += 1
            for bins, test in zip(self._bins, self._tests, strict=True):
                if bins is not None and test is not None:
                    test.update(bins.place(score, chance))
            if self._shifted_at is not None or self._evidence() < 1.0 / self.shift_level:
                return
            self._shifted_at = self._seen
        goal = self.gate.certificate.goal
        self._hub.emit(GateShifted(goal=goal, certificate=self._name, seen=self._shifted_at))
        self.tell_standing()

    def observe_label(self, score: float, correct: bool, group: str | None = None) -> None:
        """Take the score of an answer that turned out right or wrong.

        Which answers get a label must not depend on whether they are right, beyond what the rate is of: of
        those that passed, say, a random part.

        Args:
            score: of the answer; NaN is not measured, and is not passed.
            correct: whether it is right.
            group: of the answer, for a certificate with groups.

        Raises:
            InputError: the label is no truth value, or the certificate has no threshold for the group.
        """
        if not isinstance(correct, bool):
            raise InputError(f"a label is True or False, not {correct!r}")
        threshold = self.gate.threshold_of(group)
        if threshold is None:
            raise InputError(f"the certificate has no threshold for the group {group!r}")
        event = _event(self.gate.certificate.goal, passed=score <= threshold, correct=correct)
        with self._lock:
            self._labels += 1
            if event is None:
                return
            for name in {_ALL, group or _ALL} & self._risks.keys():
                self._count(name, event)
            if self._void_at is not None or max(self._bounds.values()) <= self.gate.certificate.alpha:
                return
            self._void_at = self._labels
            bound = max(self._bounds.values())
        c = self.gate.certificate
        self._hub.emit(
            PromiseVoid(goal=c.goal, certificate=self._name, alpha=c.alpha, bound=bound, labels=self._void_at)
        )
        self.tell_standing()

    def acknowledge(self) -> None:
        """Take a warning of a shift off: somebody has seen it. The test begins anew, with its level.

        What was refuted stays void: a new calibration makes a new certificate.
        """
        with self._lock:
            self._tests = [None if bins is None else ShiftTest(bins.gaps) for bins in self._bins]
            self._seen = self._not_measured = 0
            self._shifted_at = None
        self.tell_standing()

    # --- what it says ---

    @property
    def void(self) -> str | None:
        """Why the promise does not stand any more, in one sentence; ``None`` while it was not refuted."""
        if self._void_at is None:
            return None
        c = self.gate.certificate
        found = f"after {self._void_at} labels its rate is found to be above {c.alpha:g}"
        return f"the promise of certificate {self._name} is void: {found}"

    @property
    def status(self) -> WatchStatus:
        """Where it stands."""
        with self._lock:
            state: WatchState = "standing" if self._shifted_at is None else "shifted"
            c = self.gate.certificate
            return WatchStatus(
                state=state if self._void_at is None else "void",
                certificate=c.id,
                goal=c.goal,
                alpha=c.alpha,
                seen=self._seen,
                not_measured=self._not_measured,
                evidence=self._evidence(),
                shifted_at=self._shifted_at,
                watched=self._weight() > 0.0,
                labels=self._labels,
                risks=tuple(self._risk(name) for name in self._risks),
                void_at=self._void_at,
            )

    def health(self) -> Finding:
        """Return what a health check of the gate says; register it as not critical."""
        status = self.status
        if status.state == "void":
            return Finding("unhealthy", "promise_void", self.void)
        if status.state == "shifted":
            detail = f"after {status.shifted_at} answers their scores are not those of the calibration"
            return Finding("degraded", "gate_shifted", detail)
        return Finding("healthy")

    def tell_standing(self) -> None:
        """Tell the hub where it stands, for metrics; also to be called when a process begins to watch."""
        goal = self.gate.certificate.goal
        shifted, void = self._shifted_at is not None, self._void_at is not None
        self._hub.emit(GateStanding(goal=goal, certificate=self._name, shifted=shifted, void=void))

    # --- what it keeps ---

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data, of a size that does not grow with the answers."""
        with self._lock:
            return {
                "schema_version": 1,
                "kind": "gate_watch",
                "certificate": self.gate.certificate.id,
                "shift_level": self.shift_level,
                "risk_level": self.risk_level,
                "seed": self._seed,
                "drawn": self._drawn,
                "seen": self._seen,
                "not_measured": self._not_measured,
                "shifted_at": self._shifted_at,
                "tests": [None if test is None else test.to_dict() for test in self._tests],
                "labels": self._labels,
                "void_at": self._void_at,
                "risks": {name: list(counts) for name, counts in self._risks.items()},
                "bounds": dict(self._bounds),
            }

    @classmethod
    def of_dict(cls, gate: CalibratedGate, data: object, *, hub: EventHub | None = None) -> GateWatch:
        """Return the watch that `to_dict` described, with its levels.

        Raises:
            InputError: the data are no such state, or of another certificate.
        """
        state = read_state(data, gate.certificate.id)
        watch = cls(
            gate, shift_level=state.shift_level, risk_level=state.risk_level, hub=hub, seed=state.seed
        )
        if len(state.tests) != len(watch._tests) or state.risks.keys() != watch._risks.keys():
            raise InputError("the state of the watch does not fit its certificate")
        watch._tests = [
            None if bins is None or test is None else ShiftTest.of_dict(bins.gaps, test)
            for bins, test in zip(watch._bins, state.tests, strict=True)
        ]
        watch._drawn, watch._seen, watch._not_measured = state.drawn, state.seen, state.not_measured
        watch._shifted_at, watch._void_at, watch._labels = state.shifted_at, state.void_at, state.labels
        watch._risks = {name: list(counts) for name, counts in state.risks.items()}
        watch._bounds = dict(state.bounds)
        return watch

    def save(self, path: str | Path) -> Path:
        """Write the state whole or not at all, and return the path.

        Raises:
            OutputError: it cannot be written.
        """
        from cert.core.files import write_whole

        return write_whole(path, state_text(self.to_dict()))

    @classmethod
    def load(cls, gate: CalibratedGate, path: str | Path, *, hub: EventHub | None = None) -> GateWatch:
        """Go on with the state of a file.

        Raises:
            InputError: it cannot be read, or as `of_dict`.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
        return cls.of_dict(gate, content, hub=hub)

    # --- inside; with the lock ---

    @property
    def _name(self) -> str:
        return self.gate.certificate.id[:12]

    def _all_bins(self) -> list[Bins | None]:
        ranks = self.gate.certificate.score_quantiles.all.ranks
        if ranks is None:
            return [None]
        if self.gate.certificate.goal != "streaming":
            return [Bins.of(ranks, self._seed)]
        lowest = min(threshold.value for threshold in self.gate.certificate.thresholds)
        every = [Bins.of(ranks, self._seed, up_to=end) for end in _ENDS]
        return [bins if bins is not None and bins.cuts[-1] <= lowest else None for bins in every]

    def _weight(self) -> float:
        return sum(test is not None for test in self._tests) / len(self._tests)

    def _evidence(self) -> float:
        """Return the mean capital of all tests; one that cannot be made has lost."""
        return sum(math.exp(min(700.0, t.log_capital)) for t in self._tests if t) / len(self._tests)

    def _count(self, name: str, event: bool) -> None:
        counts = self._risks[name]
        counts[0] += 1
        counts[1] += event
        # Whoever looks at several bounds shares the level among them.
        level = self.risk_level / len(self._risks)
        if event and log_capital(counts[1], counts[0], self.gate.certificate.alpha) >= -math.log(level):
            self._bounds[name] = max(self._bounds[name], lower_bound(counts[1], counts[0], level))

    def _risk(self, name: str) -> RiskStatus:
        counted, events = self._risks[name]
        level = self.risk_level / len(self._risks)
        bound = max(self._bounds[name], lower_bound(events, counted, level))
        certificate = self.gate.certificate
        threshold = certificate.threshold if name == _ALL else (certificate.groups or {}).get(name)
        law = None if threshold is None else threshold.details
        a, b = (law.get("beta_a"), law.get("beta_b")) if law else (None, None)
        luck = by_luck(a, b, bound) if isinstance(a, int) and isinstance(b, int) else None
        return RiskStatus(
            group=name or None,
            counted=counted,
            events=events,
            rate=events / counted if counted else math.nan,
            bound=bound,
            by_luck=luck,
        )


def _event(goal: Goal, *, passed: bool, correct: bool) -> bool | None:
    """Return whether a labelled answer is what the promise bounds; ``None`` where its rate is not of it."""
    match goal:
        case "false-flags" | "streaming":
            return not passed if correct else None
        case "misses":
            return None if correct else passed
        case "selective-risk":
            return not correct if passed else None
        case "undetected-errors":
            return passed and not correct
