"""What the page of an evaluation shows, worked out here so that the template only places it."""

from __future__ import annotations

from typing import Any, Final

from cert.reporting.numbers import NOT_MEASURED, probability
from cert.trajectory.evaluation.cautions import cautions
from cert.trajectory.evaluation.report.charts import (
    COVERAGES,
    auroc_forest,
    bars,
    reliability_chart,
    risk_chart,
    roc_chart,
)
from cert.trajectory.evaluation.types import (
    COMBINER,
    CombinerEvaluation,
    EvaluationReport,
    ProbabilityEvaluation,
    ScoreEvaluation,
)
from cert.trajectory.evaluation.words import best_of, counted, figure, headline, ordered, ranged, signed, span

__all__ = ["view"]

_SHOWN: Final = 4
_SOURCES: Final = {
    "stated": "the probability of the whole answer, as the model has it",
    "logistic": "a logistic curve in the rank of the score",
    "isotonic": "an isotonic curve",
}


def view(report: EvaluationReport) -> dict[str, Any]:
    """Return everything that the template needs."""
    shown = _shown(report)
    error_rate = report.error_rate.value or 0.0
    return {
        "title": headline(report),
        "headline": headline(report),
        "combiner": None if report.combiner is None else _combiner(report.combiner),
        "figures": _figures(report),
        "cautions": cautions(report),
        "forest_chart": auroc_forest(report),
        "risk": risk_chart(shown, error_rate) if shown else None,
        "roc": roc_chart(shown) if shown else None,
        "coverages": [f"{100 * kept:g} %" for kept in COVERAGES],
        "scores": [_score(one) for one in ordered(report)],
        "baseline": report.baseline,
        "max_rejection": f"{100 * report.max_rejection:g} %",
        "probabilities": _probabilities(report),
        "histograms": [
            {"name": one.name, "id": f"h{place}", **bars(one.curves.histogram)}
            for place, one in enumerate(ordered(report))
            if one.curves is not None and one.curves.histogram is not None
        ],
        "open": {one.name for one in shown[:2]},
        "groups": _groups(report),
        "facts": _facts(report),
    }


def _shown(report: EvaluationReport) -> list[ScoreEvaluation]:
    """The scores whose curves are drawn: the baseline, the combiner and the best ones."""
    known = [one for one in ordered(report) if one.curves is not None]
    special = [one for one in known if one.name in (report.baseline, COMBINER)]
    others = [one for one in known if one not in special][: max(0, _SHOWN - len(special))]
    return [one for one in known if one in special or one in others]


def _figures(report: EvaluationReport) -> list[tuple[str, str, str]]:
    best = best_of(report)
    rate = report.error_rate
    told = probability(rate.value)
    if rate.low is not None:
        told += f" ({probability(rate.low)} to {probability(rate.high)})"
    figures = [
        ("answers", f"{report.n:,}", f"about {report.n_units:,} units"),
        ("wrong", f"{report.n_wrong:,}", f"in {report.units_wrong:,} units"),
        ("error rate", told, "with nothing rejected"),
    ]
    if best is not None:
        figures += [
            ("AUROC", ranged(best.auroc), f"of {best.name}; chance is 0.5"),
            ("AUPRC", ranged(best.auprc), f"chance is {figure(rate.value)}"),
            ("PRR", ranged(best.prr), f"at most {100 * report.max_rejection:g} % rejected; chance is 0"),
        ]
    return figures


def _combiner(found: CombinerEvaluation) -> str:
    told = f"{ranged(found.advantage, difference=True)} of AUROC over {found.best_single}"
    if found.used:
        return f"A combiner of {len(found.features)} signals is worth using: {told}."
    return f"A combiner of {len(found.features)} signals is not worth using here: {told}."


def _score(one: ScoreEvaluation) -> dict[str, Any]:
    measures = (one.auroc, one.auprc, one.prr, one.aurc, one.excess_aurc)
    honest = one.probability
    return {
        "name": one.name,
        "n": f"{one.n:,}",
        "measures": [(figure(found.value), span(found)) for found in measures],
        "difference": ("", "")
        if one.difference is None
        else (signed(one.difference.value), span(one.difference, difference=True)),
        "length": signed(one.length_correlation, 2),
        "within": figure(one.auroc_within_length),
        "brier": NOT_MEASURED if honest is None else figure(honest.brier.value),
        "ece": NOT_MEASURED if honest is None else figure(honest.ece),
    }


def _probabilities(report: EvaluationReport) -> list[dict[str, Any]]:
    """The stated probability, and those made of the best score and of the baseline."""
    best = best_of(report)
    wanted: list[tuple[str, ProbabilityEvaluation | None]] = [("as stated", report.stated)]
    names = dict.fromkeys(name for name in (best and best.name, report.baseline) if name)
    wanted += [(one.name, one.probability) for name in names for one in report.scores if one.name == name]
    return [_honesty(name, found) for name, found in wanted if found is not None]


def _honesty(name: str, found: ProbabilityEvaluation) -> dict[str, Any]:
    chance = found.ece_by_chance
    if chance is None:
        judged = "whether that is chance could not be measured"
    elif found.ece > chance:
        judged = f"an honest probability would stay below {figure(chance)}: this one is not calibrated"
    else:
        judged = f"no more than the {figure(chance)} that an honest probability may show by chance"
    return {
        "name": name,
        "source": _SOURCES[found.source],
        "ece": f"ECE {figure(found.ece)}: {judged}.",
        "brier": f"Brier score {ranged(found.brier)}; "
        f"of the constant probability {figure(found.brier_constant)}.",
        "chart": reliability_chart(found.bins),
    }


def _groups(report: EvaluationReport) -> dict[str, Any] | None:
    if not report.groups:
        return None
    names = [one.name for one in ordered(report)][:_SHOWN]
    return {
        "scores": names,
        "rows": [
            {
                "name": group.name,
                "n": f"{group.n:,}",
                "units": f"{group.n_units:,}",
                "error_rate": ranged(group.error_rate),
                "auroc": [(ranged(group.auroc[name]), group.auroc[name].note) for name in names],
            }
            for group in report.groups
        ],
    }


def _facts(report: EvaluationReport) -> list[tuple[str, str]]:
    made = report.conditions
    stated = "not stated"
    return [
        ("Model", made.model or stated),
        ("Revision", made.revision or stated),
        ("Backend", made.backend or stated),
        ("Log-probabilities", made.logprobs_mode or stated),
        ("Candidates a step, K", stated if made.top_k is None else str(made.top_k)),
        ("Sampling", settings_of(made.sampling) if made.sampling else stated),
        ("Template", made.template or stated),
        ("Data, SHA-256", report.data_sha256 or "made in memory"),
        ("Left out", counted(report.dropped) or "nothing"),
        (
            "Intervals",
            f"{100 * report.level:g} %, {report.replicates:,} draws of units, seed {report.seed}",
        ),
        ("Probabilities", f"{_SOURCES[report.probabilities]}, {report.folds} folds that share no unit"),
        ("ECE", f"{report.bins} bins of equal mass"),
        ("CERT", report.version),
    ]


def settings_of(sampling: Any) -> str:
    """Return sampling settings as one text."""
    return ", ".join(f"{name} {value}" for name, value in sampling.items())
