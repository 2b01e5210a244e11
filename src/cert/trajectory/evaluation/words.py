"""Figures of an evaluation as people read them; terminal and page say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cert.reporting.numbers import NOT_MEASURED
from cert.trajectory.evaluation.bootstrap import Estimate
from cert.trajectory.evaluation.types import COMBINER, EvaluationReport, ScoreEvaluation

__all__ = ["best_of", "counted", "figure", "headline", "ordered", "ranged", "signed", "span"]

_MINUS: Final = "−"


def figure(value: float | None, digits: int = 3) -> str:
    """Return a number on a scale of about 1."""
    if value is None:
        return NOT_MEASURED
    text = f"{abs(value):.{digits}f}"
    return f"{_MINUS}{text}" if value < 0 and float(text) else text


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference or a correlation, with its sign."""
    if value is None:
        return NOT_MEASURED
    text = figure(value, digits)
    return text if text.startswith(_MINUS) or not float(text) else f"+{text}"


def span(found: Estimate, *, difference: bool = False) -> str:
    """Return the interval of a figure; empty without one."""
    write = signed if difference else figure
    return "" if found.low is None else f"{write(found.low)} to {write(found.high)}"


def ranged(found: Estimate | None, *, difference: bool = False) -> str:
    """Return a figure with its interval."""
    if found is None or found.value is None:
        return NOT_MEASURED
    told = (signed if difference else figure)(found.value)
    return f"{told} ({span(found, difference=difference)})" if found.low is not None else told


def ordered(report: EvaluationReport) -> list[ScoreEvaluation]:
    """Return the scores with the largest AUROC first; those that have none come last, by name."""
    return sorted(
        report.scores,
        key=lambda one: (one.auroc.value is None, -(one.auroc.value or 0.0), one.name),
    )


def best_of(report: EvaluationReport) -> ScoreEvaluation | None:
    """Return the score with the largest AUROC, of those that most answers have; ``None`` without one.

    A combiner that is not worth using is none.
    """
    useless = report.combiner is not None and not report.combiner.used
    known = [
        one
        for one in ordered(report)
        if one.auroc.value is not None and not (useless and one.name == COMBINER)
    ]
    whole = [one for one in known if 2 * one.n > report.n]
    return next(iter(whole or known), None)


def headline(report: EvaluationReport) -> str:
    """Return one sentence that says what was found."""
    best = best_of(report)
    if best is None:
        return "No score could be judged on these answers."
    sure = f"{best.name} tells wrong answers from right ones best: AUROC {ranged(best.auroc)}."
    if best.auroc.low is None:
        return f"{sure} How sure that is could not be measured."
    if all(one.auroc.low is None or one.auroc.low <= 0.5 for one in report.scores):
        return f"No score is surely better than chance. {sure}"
    return sure


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by reason as one text."""
    return ", ".join(f"{number:,} {reason}" for reason, number in counts.items())
