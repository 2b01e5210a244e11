"""When not to believe an evaluation: what of these very data limits what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cert.trajectory.evaluation.bootstrap import FEW_UNITS
from cert.trajectory.evaluation.types import EvaluationReport
from cert.trajectory.evaluation.words import best_of, counted, ranged

__all__ = ["cautions"]

_LONG: Final = 0.5


def cautions(report: EvaluationReport) -> tuple[str, ...]:
    """Return in sentences why figures may mislead, the gravest first."""
    return (*_of_size(report), *_of_data(report), *_of_scores(report), *_of_choice(report), _ALWAYS)


_ALWAYS: Final = "Figures are of answers like these, by this model under these conditions, and of no others."


def _of_size(report: EvaluationReport) -> Iterator[str]:
    for number, kind in ((report.units_wrong, "wrong"), (report.units_right, "right")):
        if number < FEW_UNITS:
            yield (
                f"Only {number} units have a {kind} answer. Intervals rest on those: they may be too narrow, "
                "or there are none."
            )
    if report.n_units == report.n:
        yield (
            "Each answer counts as a unit of its own. If several are about one person, document or question, "
            "name the field that says which (--unit): intervals are too narrow without it."
        )


def _of_data(report: EvaluationReport) -> Iterator[str]:
    if report.dropped:
        yield f"Records that are left out: {counted(report.dropped)}."
    yield from report.unchecked


def _of_scores(report: EvaluationReport) -> Iterator[str]:
    if missing := {one.name: one.not_measured for one in report.scores if one.not_measured}:
        names = ", ".join(f"{name} ({number:,})" for name, number in missing.items())
        yield f"Not measured for some answers, which are left out of the figures of that score: {names}."
    if infinite := {one.name: one.infinite for one in report.scores if one.infinite}:
        names = ", ".join(f"{name} ({number:,})" for name, number in infinite.items())
        yield f"Infinite for some answers, which count as the largest or smallest: {names}."
    long = [
        one.name
        for one in report.scores
        if one.length_correlation is not None and abs(one.length_correlation) > _LONG
    ]
    if long:
        yield (
            f"{', '.join(long)}: goes with the length of the answer (correlation above {_LONG} in size). "
            "See its AUROC within lengths."
        )


def _of_choice(report: EvaluationReport) -> Iterator[str]:
    if report.combiner is not None and not report.combiner.used:
        yield (
            "The combiner is not worth using here: its advantage over the best single score, "
            f"{ranged(report.combiner.advantage, difference=True)} of AUROC, is not surely above 0."
        )
    judged = [one for one in report.scores if one.auroc.value is not None]
    best = best_of(report)
    if best is not None and len(judged) > 1:
        yield (
            f"The best of {len(judged)} scores on the same answers looks better than it is. Choose it here, "
            "and state its figures on other answers."
        )
