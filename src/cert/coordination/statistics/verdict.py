"""Is it worth it? *Worth it*, *not worth it* or *not enough data*, with the reasons.

The claims are about the mean difference δ = C − S of the coordinated system and a baseline, by one interval
of level 1 − α: *worth it* where it lies above a practical margin, *not worth it* where it lies below (a test
of non-superiority: whatever δ is, it is not worth having). Each of the two errors has probability α/2 at
most. Neither claim is made where the noise of measurement forbids it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy.typing as npt

from cert.coordination.statistics.holm import holm
from cert.coordination.statistics.inference import Difference, Inference, difference, inference
from cert.coordination.statistics.noise import NoiseFloor, noise_floor
from cert.coordination.statistics.pairs import Pairs, pair, scores_of
from cert.coordination.statistics.power import minimum_detectable_effect, tasks_needed
from cert.coordination.statistics.ratios import Estimate, ratio
from cert.coordination.types import Verdict
from cert.core.errors import InputError

__all__ = ["MARGIN", "Decision", "Rules", "decide", "decide_all"]

MARGIN: Final = 0.025
_SMALLEST: Final = 1.0e-4  # a hundredth of a point; no number of tasks tells less


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of a verdict.

    Attributes:
        margin: the smallest difference in score, on [0, 1], that is of use; 0 for any at all.
        minimum_effect: that is to be found with ``power``, by default twice the margin (a margin of 0: 0.05).
            With the default, as many tasks find it as tell an effect of nothing to be not worth it.
        level: of the intervals.
        power: for "about N more tasks" and the minimum detectable effect.

    Raises:
        InputError: a value out of range, or an effect not above the margin.
    """

    margin: float = MARGIN
    minimum_effect: float | None = None
    level: float = 0.95
    power: float = 0.8

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin < 1.0:
            raise InputError(f"a margin is in [0, 1), not {self.margin}")
        if not (0.5 <= self.level < 1.0 and 0.5 <= self.power < 1.0):
            raise InputError("level and power are in [0.5, 1)")
        if not self.margin + _SMALLEST <= self.effect <= 1.0:
            raise InputError(f"the minimum effect, {self.effect}, is not above the margin, {self.margin}")

    @property
    def effect(self) -> float:
        """The minimum effect, its default filled in."""
        if self.minimum_effect is not None:
            return self.minimum_effect
        return 2.0 * (self.margin or MARGIN)


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and what it rests on.

    Attributes:
        verdict: *worth it*, *not worth it* or *not enough data*.
        reasons: in sentences, the deciding one first.
        difference: coordinated − baseline, with its interval.
        ratio: γ, with an interval by the same method.
        noise_floor: of the baseline against itself.
        p_value: two-sided, of a difference that equals the margin; ``None`` where nothing can be said.
        adjusted_p_value: by Holm, over the strategies of a family; else the same.
        minimum_detectable_effect: of a comparison like this one; ``None`` where the data bound nothing.
        tasks_needed: in all, to find the minimum effect; ``None`` where that cannot be said.
        more_tasks: beyond those measured; ``None`` where that cannot be said or a claim is made.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    difference: Difference
    ratio: Estimate
    noise_floor: NoiseFloor
    p_value: float | None
    adjusted_p_value: float | None
    minimum_detectable_effect: float | None
    tasks_needed: int | None
    more_tasks: int | None


def decide(
    coordinated: npt.ArrayLike,
    baseline: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    rules: Rules | None = None,
) -> Decision:
    """Decide whether the coordinated system is worth it against the baseline.

    Args:
        coordinated: (T,) or (T, R) scores in [0, 1], NaN where missing.
        baseline: the same; two or more replicates also measure the noise floor.
        clusters: the source of each task.
        rules: margin, levels.
    """
    return _Comparison.of(coordinated, baseline, clusters, rules or Rules()).decision()


def decide_all(
    coordinated: Mapping[str, npt.ArrayLike],
    baselines: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    clusters: Sequence[Hashable] | None = None,
    rules: Rules | None = None,
) -> dict[str, Decision]:
    """Decide for several strategies, so that any false claim among them all has probability α at most (Holm).

    Each interval has the level of its step, so that it agrees with the decision.

    Args:
        coordinated: the scores of each strategy.
        baselines: of all, or of each strategy where they differ, as with budgets matched to the strategy.
        clusters: the source of each task.
        rules: margin, levels.
    """
    rules = rules or Rules()
    of_each = baselines if isinstance(baselines, Mapping) else dict.fromkeys(coordinated, baselines)
    if missing := [name for name in coordinated if name not in of_each]:
        raise InputError(f"no baseline is given for {', '.join(missing)}")
    all_of_them = {
        name: _Comparison.of(scores, of_each[name], clusters, rules) for name, scores in coordinated.items()
    }
    tested = {name: p for name, each in all_of_them.items() if (p := each.p_value) is not None}
    steps = dict(zip(tested, holm(list(tested.values()), rules.level), strict=True))
    return {
        name: each.decision(steps[name].level, steps[name].adjusted) if name in steps else each.decision()
        for name, each in all_of_them.items()
    }


@dataclass(frozen=True, slots=True)
class _Comparison:
    pairs: Pairs
    method: Inference | None
    floor: NoiseFloor
    rules: Rules

    @classmethod
    def of(
        cls,
        coordinated: npt.ArrayLike,
        baseline: npt.ArrayLike,
        clusters: Sequence[Hashable] | None,
        rules: Rules,
    ) -> _Comparison:
        pairs = pair(coordinated, baseline, clusters)
        replicates = (scores_of(coordinated).shape[1], scores_of(baseline).shape[1])
        floor = noise_floor(baseline, replicates, clusters, rules.level)
        return cls(pairs, inference(pairs), floor, rules)

    @property
    def p_value(self) -> float | None:
        return self.method.p_value(self.rules.margin) if self.method else None

    def decision(self, level: float | None = None, adjusted: float | None = None) -> Decision:
        rules = self.rules
        found = difference(self.pairs, level or rules.level, self.method)
        verdict, reasons = _judge(found, self.floor, rules.margin)
        needed = tasks_needed(found, rules.effect, rules.margin, found.interval.level, rules.power)
        open_still = verdict == "not_enough_data" and needed is not None
        more = max(0, needed - found.tasks) if open_still and needed is not None else None
        if more:
            reasons.append(f"about {more} more tasks would find an effect of {rules.effect:.3g}")
        return Decision(
            verdict=verdict,
            reasons=(*reasons, *_caveats(found, self.floor)),
            difference=found,
            ratio=ratio(self.pairs, found.interval.level, self.method),
            noise_floor=self.floor,
            p_value=self.p_value,
            adjusted_p_value=self.p_value if adjusted is None else adjusted,
            minimum_detectable_effect=minimum_detectable_effect(found, rules.margin, rules.power),
            tasks_needed=needed,
            more_tasks=more or None,
        )


def _judge(found: Difference, floor: NoiseFloor, margin: float) -> tuple[Verdict, list[str]]:
    low, high = found.interval.low, found.interval.high
    shown = f"the {found.interval.level:.4g} interval of the difference, {low:+.3f} to {high:+.3f},"
    if obstacle := _obstacle(found, floor):
        return "not_enough_data", [obstacle]
    noise = floor.value or 0.0
    if low > margin:
        if found.value is not None and found.value <= noise:
            return "not_enough_data", [f"the difference is within the noise floor of {noise:.3f}"]
        return "worth_it", [f"{shown} lies above the margin of {margin:.3g}"]
    if high < margin:
        if noise > margin > 0.0 and found.value is not None and abs(found.value) <= noise:
            return "not_enough_data", [f"the noise floor of {noise:.3f} is above the margin of {margin:.3g}"]
        return "not_worth_it", [f"{shown} lies below the margin of {margin:.3g}"]
    return "not_enough_data", [f"{shown} holds the margin of {margin:.3g}"]


def _obstacle(found: Difference, floor: NoiseFloor) -> str | None:
    """Return why no claim is made whatever the interval, or ``None``."""
    if found.value is None:
        return found.missing
    if found.sources < 2:
        return "one task, or tasks of one source alone, cannot tell an effect from chance"
    if not found.varied:
        return "all differences are equal: without variance there is no verdict"
    if not floor.stable:
        return "the baseline differs from itself between its replicates: system or judge changed meanwhile"
    return None


def _caveats(found: Difference, floor: NoiseFloor) -> list[str]:
    caveats = []
    if found.missing_judgements:
        low, high = found.worst_case
        caveats.append(
            f"{found.missing_judgements} judgements are missing and {found.dropped} tasks left out: "
            f"depending on them the difference is {low:+.3f} to {high:+.3f}"
        )
    if floor.missing:
        caveats.append(f"the noise floor is not measured: {floor.missing}")
    return caveats
