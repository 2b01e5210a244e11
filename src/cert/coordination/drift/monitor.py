"""Watches the scores of systems for a fall, and the judge that gives them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from cert.coordination.drift.anchors import Anchor, AnchorSet
from cert.coordination.drift.series import Acknowledgement, Alarm, Check, Phase, Plan, Series
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.gathering import all_to_their_end
from cert.coordination.types import Evaluation, Task
from cert.core.bounds import positive
from cert.core.errors import ConfigurationError, DependencyMissingError, InputError, StoreError
from cert.core.events import DriftFound, DriftStanding, EventHub, default_hub

if TYPE_CHECKING:
    from cert.coordination.drift.state import Held, SeriesStore

__all__ = ["DriftMonitor", "DriftStatus", "Score"]

Score: TypeAlias = float | Evaluation | None

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftStatus:
    """Where one system on one family of tasks stands.

    Attributes:
        system, family: which.
        phase: ``reference``, in which nothing is found, or ``watching``.
        waiting: why a reference of the planned size was not enough, else ``None``.
        plan: what is watched for.
        reference: scores in the reference phase.
        mean: of them; ``None`` in the reference phase.
        seen: scores since the promise began, with the end of the reference phase or the last acknowledgement.
        missing: scores that were missing, in either phase; they are not fed.
        promised: whether the stated rate still holds: not beyond the horizon.
        statistic, threshold: of the detector; ``None`` in the reference phase.
        alarm: that stands, else ``None``.
        check: the last one since the promise began.
        checks: how many there were since.
        check_due: whether the anchors should be scored again.
        anchors_sha256: of the frozen anchors; ``None`` without any.
        evaluator: whose scores these are, where it is known.
        acknowledged: alarms that were.
        acknowledgement: of the last of them; ``None`` where there was none, or before who was kept.
    """

    system: str
    family: str
    phase: Phase
    waiting: str | None
    plan: Plan
    reference: int
    mean: float | None
    seen: int
    missing: int
    promised: bool
    statistic: float | None
    threshold: float | None
    alarm: Alarm | None
    check: Check | None
    checks: int
    check_due: bool
    anchors_sha256: str | None
    evaluator: str | None
    acknowledged: int
    acknowledgement: Acknowledgement | None = None


class DriftMonitor:
    """Tells when a system got worse on a family of tasks, and whether it was the system or its judge.

    A series begins with the first score of a system on a family. Its first ``plan.reference`` scores are the
    reference phase; from then on a CUSUM watches for a fall of the mean, calibrated on them. An alarm stays
    until it is acknowledged.

    Each call is one transaction: what it returns is on the disk. A kill before that loses the scores of that
    call and nothing else; a caller that doesn't know whether they were kept repeats the call with the same
    keys, and none counts twice. A kill in the middle of a check loses the check: its money, and no state.

    Args:
        store: the path of a SQLite file of its own, which is made where there is none and holds the anchors'
            tasks and answers, readable by its owner alone; or the URL of a database.
        evaluator: the judge that scores the anchors.
        plan: of series that begin here; those that go on must have begun with the same.
        timeout: seconds to wait for a lock or an answer of the database.
        hub: told of alarms.
        now: seconds since 1970, for tests.

    Raises:
        ConfigurationError: no URL of a database that is known here.
        DependencyMissingError: SQLAlchemy or the driver is not installed.
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        evaluator: Evaluator | None = None,
        *,
        plan: Plan | None = None,
        timeout: float = 10.0,
        hub: EventHub | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        positive("timeout", timeout)
        self.plan = plan or Plan()
        self.evaluator = evaluator
        self._store = _opened(os.fspath(store), timeout)
        self._hub = hub or default_hub()
        self._now = now
        self._standing_told = False

    # --- scores ---

    async def observe(
        self, system: str, family: str | None, score: Score, *, key: str | None = None
    ) -> DriftStatus:
        """Take one score of a system.

        Args:
            system: whose.
            family: of the task.
            score: in [0, 1], or an evaluation; ``None`` or NaN is missing, counted and not fed.
            key: names this score among all of the series; one that was taken before is not taken again.

        Raises:
            InputError: no system or family, a score outside [0, 1], or another judge's than before.
            ConfigurationError: the series began with another plan.
            StoreError: the score could not be kept.
        """
        return await self.observe_all(system, family, [score], keys=None if key is None else [key])

    async def observe_all(
        self, system: str, family: str | None, scores: Sequence[Score], *, keys: Sequence[str] | None = None
    ) -> DriftStatus:
        """Take several scores in the order in which they were made: all, or where one is refused, none.

        Args:
            system: whose.
            family: of the tasks.
            scores: as of `observe`.
            keys: one each.

        Raises:
            InputError, ConfigurationError, StoreError: as of `observe`.
        """
        system, family = _name("system", system), _name("family", family)
        if keys is not None and len(keys) != len(scores):
            raise InputError(f"{len(keys)} keys are given for {len(scores)} scores")
        at = self._now()

        def feed(held: Held, fresh: Sequence[int]) -> Held:
            series = self._same_plan(held.series, system, family)
            for i in fresh:
                score = scores[i]
                if isinstance(score, Evaluation):
                    series = _same_judge(series, score.evaluator)
                    score = score.score
                series = series.fed(score, at)
            return replace(held, series=series)

        every_key = keys if keys is not None else [None] * len(scores)
        return await self._changed(system, family, self._begin, feed, every_key)

    # --- anchors ---

    async def freeze(
        self, system: str, family: str | None, answers: Sequence[tuple[Task | str, str]]
    ) -> DriftStatus:
        """Score answers for the first time and freeze them with these scores; they replace earlier ones.

        Choose them as the system's answers come, without regard to how they were scored.

        Args:
            system: whose anchors they are.
            family: of which tasks.
            answers: tasks with answers, 10 at least, better 50 to 100; those that cannot be scored are left
                out.

        Raises:
            InputError: too few of them could be scored, or the series has another judge's scores.
            ConfigurationError: there is no evaluator, or the series began with another plan.
            BudgetExceededError: there is no money left for the judge.
            StoreError: they could not be kept.
        """
        system, family = _name("system", system), _name("family", family)
        judge = self._judge()
        tasks = [(Task.of(task), answer) for task, answer in answers]
        scored = await _score(judge, tasks)
        frozen = AnchorSet(
            tuple(
                Anchor(task, answer, one.score)
                for (task, answer), one in zip(tasks, scored, strict=True)
                if one.score is not None
            ),
            judge.identity,
            self._now(),
        )

        def keep(held: Held, _fresh: Sequence[int]) -> Held:
            series = _same_judge(self._same_plan(held.series, system, family), judge.identity)
            return replace(held, series=series, anchors=frozen, anchors_sha256=frozen.sha256)

        return await self._changed(system, family, self._begin, keep)

    async def check(self, system: str, family: str | None) -> Check:
        """Score the anchors again, and tell apart who changed; costs one judgement for each anchor.

        Raises:
            InputError: there is no such series, or it has no anchors.
            ConfigurationError: there is no evaluator, or not the one that first scored them.
            BudgetExceededError: there is no money left for the judge; nothing is changed.
            StoreError: the store cannot be used, or the anchors are not those that were frozen.
        """
        system, family = _name("system", system), _name("family", family)
        judge = self._judge()
        frozen = await self._store.anchors(system, family)
        if frozen is None:
            await self.status(system, family)
            raise InputError(f"'{system}' has no anchors on '{family}'", hint="freeze some of its answers")
        if judge.identity != frozen.evaluator:
            raise ConfigurationError(
                f"the anchors of '{system}' on '{family}' were scored by another judge",
                hint="Two judges have two scales: restart the series and freeze anew.",
                context={"frozen_by": frozen.evaluator, "evaluator": judge.identity},
            )
        scored = await _score(judge, [(anchor.task, anchor.answer) for anchor in frozen.anchors])
        at, cost = self._now(), sum(one.cost_micro_dollars for one in scored)

        def keep(held: Held, _fresh: Sequence[int]) -> Held:
            if held.anchors_sha256 != frozen.sha256:
                raise StoreError(
                    f"'{self._store.name}': other anchors were frozen for '{system}' on '{family}' meanwhile",
                    hint="Check again.",
                    context={"store": self._store.name, "reason": "replaced"},
                )
            series = self._same_plan(held.series, system, family)
            return replace(held, series=series.checked(frozen, tuple(one.score for one in scored), at, cost))

        status = await self._changed(system, family, self._unknown(system, family), keep)
        assert status.check is not None
        return status.check

    async def due(self) -> tuple[tuple[str, str], ...]:
        """Return the systems and families whose anchors should be scored again.

        Raises:
            StoreError: the store cannot be read, or a state in it is damaged.
        """
        states = await self.statuses()
        return tuple((one.system, one.family) for one in states if one.check_due)

    # --- looking, and answering an alarm ---

    async def status(self, system: str, family: str | None) -> DriftStatus:
        """Return where a series stands.

        Raises:
            InputError: there is no such series.
            StoreError: the store cannot be read, or the state in it is damaged.
        """
        system, family = _name("system", system), _name("family", family)
        await self._tell_standing()
        held = await self._store.read(system, family)
        return _status(system, family, held or self._unknown(system, family)())

    async def statuses(self) -> tuple[DriftStatus, ...]:
        """Return where all series stand, by system and family.

        Raises:
            StoreError: the store cannot be read, or a state in it is damaged.
        """
        return tuple([await self.status(system, family) for system, family in await self._store.names()])

    async def acknowledge(
        self, system: str, family: str | None, *, by: str | None = None, raised_at: float | None = None
    ) -> DriftStatus:
        """Take an alarm off: somebody has seen it. Without one nothing happens.

        The reference and the anchors stay and the promise begins anew, so that what still is as it was found
        alarms again. What is to be the new normal takes a `restart`.

        Args:
            system: whose alarm it is.
            family: on which tasks.
            by: who has seen it; kept with the time.
            raised_at: of the alarm that was seen; another one is left as it is. ``None`` is whichever stands.

        Raises:
            InputError: there is no such series.
            StoreError: the store cannot be used.
        """
        system, family = _name("system", system), _name("family", family)

        def calm(held: Held, _fresh: Sequence[int]) -> Held:
            alarm = held.series.alarm
            if alarm is not None and raised_at is not None and alarm.raised_at != raised_at:
                return held
            return replace(held, series=held.series.calmed(by, self._now()))

        return await self._changed(system, family, self._unknown(system, family), calm)

    async def restart(self, system: str, family: str | None) -> DriftStatus:
        """Begin a new reference phase with this monitor's plan; anchors and judge are to be named anew.

        Raises:
            InputError: there is no such series.
            StoreError: the store cannot be used.
        """
        system, family = _name("system", system), _name("family", family)

        def anew(held: Held, _fresh: Sequence[int]) -> Held:
            series = held.series.calmed(None, self._now())
            begun = Series(
                plan=self.plan, acknowledged=series.acknowledged, acknowledgement=series.acknowledgement
            )
            return replace(self._begin(), series=begun)

        return await self._changed(system, family, self._unknown(system, family), anew)

    async def aclose(self) -> None:
        """Let go of connections; a later use opens new ones."""
        await self._store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- one change ---

    async def _changed(
        self,
        system: str,
        family: str,
        begin: Callable[[], Held],
        work: Callable[[Held, Sequence[int]], Held],
        keys: Sequence[str | None] = (),
    ) -> DriftStatus:
        await self._tell_standing()
        before, after = await self._store.change(system, family, begin, work, keys)
        was, now = before.series.alarm, after.series.alarm
        # Only now: an alarm that was told and not kept would be gone after a restart.
        if now is not None and (was is None or (was.kind, was.fell_at) != (now.kind, now.fell_at)):
            self._hub.emit(DriftFound(system=system, family=family, kind=now.kind))
        kinds = {alarm.kind for alarm in (was, now) if alarm is not None}
        if was != now:
            standing = await self._store.standing()
            for kind in sorted(kinds):
                alarms = standing.get((system, kind), 0)
                self._hub.emit(DriftStanding(system=system, kind=kind, alarms=alarms))
        return _status(system, family, after)

    async def _tell_standing(self) -> None:
        """Tell of the alarms that stood when this monitor was made."""
        if self._standing_told:
            return
        for (system, kind), alarms in sorted((await self._store.standing()).items()):
            self._hub.emit(DriftStanding(system=system, kind=kind, alarms=alarms))
        self._standing_told = True

    def _begin(self) -> Held:
        from cert.coordination.drift.state import Held

        return Held(Series(plan=self.plan))

    def _unknown(self, system: str, family: str) -> Callable[[], Held]:
        def refuse() -> Held:
            raise InputError(
                f"no score of '{system}' on '{family}' was ever observed",
                hint="`statuses` lists what was.",
            )

        return refuse

    def _judge(self) -> Evaluator:
        if self.evaluator is None:
            raise ConfigurationError("anchors take an evaluator", hint="give the monitor the judge")
        return self.evaluator

    def _same_plan(self, series: Series, system: str, family: str) -> Series:
        if series.plan != self.plan:
            raise ConfigurationError(
                f"'{system}' on '{family}' is watched by another plan: {series.plan}",
                hint="Give the monitor this plan, or restart the series.",
            )
        return series


def _opened(store: str, timeout: float) -> SeriesStore:
    try:
        from cert.coordination.drift.state import SeriesStore

        return SeriesStore(store, timeout)
    except ModuleNotFoundError as error:
        extra = "postgres" if error.name == "asyncpg" else "coordination"
        raise DependencyMissingError(
            f"the state of drift needs the package {error.name}",
            hint=f"install it with: pip install 'cert-framework[{extra}]'",
        ) from error


async def _score(judge: Evaluator, answers: Sequence[tuple[Task, str]]) -> tuple[Evaluation, ...]:
    """Score answers now. The draw is new each time: a cache would say for ever what the judge said first."""
    draw = f"anchors-{secrets.token_hex(8)}"
    scored = await all_to_their_end(judge.evaluate(task, answer, draw=draw) for task, answer in answers)
    return tuple(
        replace(one, score=None, missing="from_cache") if one.from_cache and one.score is not None else one
        for one in scored
    )


def _same_judge(series: Series, evaluator: str) -> Series:
    if series.evaluator not in (None, evaluator):
        raise InputError(
            "the score is another judge's than those before",
            hint="Two judges have two scales: restart the series.",
            context={"before": series.evaluator, "now": evaluator},
        )
    return replace(series, evaluator=evaluator)


def _name(what: str, name: str | None) -> str:
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            f"the {what} has no name", hint="Scores are watched for each system and family of tasks."
        )
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InputError(f"the name of a {what} has at most {_LONGEST_NAME} characters, all printable")
    return name


def _status(system: str, family: str, held: Held) -> DriftStatus:
    series = held.series
    detector, state = series.detector, series.state
    return DriftStatus(
        system=system,
        family=family,
        phase=series.phase,
        waiting=series.waiting,
        plan=series.plan,
        reference=len(series.reference),
        mean=None if detector is None else detector.mean,
        seen=state.seen,
        missing=series.reference_missing + state.missing,
        promised=state.seen <= series.plan.horizon and series.checks <= series.plan.checks,
        statistic=None if detector is None else state.statistic,
        threshold=None if detector is None else detector.threshold,
        alarm=series.alarm,
        check=series.check,
        checks=series.checks,
        check_due=held.anchors_sha256 is not None and series.check_due,
        anchors_sha256=held.anchors_sha256,
        evaluator=series.evaluator,
        acknowledged=series.acknowledged,
        acknowledgement=series.acknowledgement,
    )
