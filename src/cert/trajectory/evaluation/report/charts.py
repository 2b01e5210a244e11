"""The charts of an evaluation: places in per cent, so that they fit any screen without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from cert.reporting.numbers import number
from cert.reporting.scales import Scale, linear
from cert.trajectory.evaluation.bootstrap import LEVEL
from cert.trajectory.evaluation.curves import Histogram
from cert.trajectory.evaluation.probabilities import ReliabilityBin
from cert.trajectory.evaluation.types import EvaluationReport, ScoreEvaluation
from cert.trajectory.evaluation.words import figure, ordered, ranged

__all__ = ["COVERAGES", "auroc_forest", "bars", "reliability_chart", "risk_chart", "roc_chart"]

COVERAGES: Final = (0.25, 0.5, 0.75, 0.9, 1.0)
# Of fewer answers than this many per cent, the error rate is noise.
_FIRST: Final = 4
_SHARES: Final = tuple((100.0 * share, f"{100 * share:g} %") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
_UNIT: Final = Scale(0.0, 1.0, _SHARES)


def auroc_forest(report: EvaluationReport) -> dict[str, Any] | None:
    """Return the AUROC of each score with its interval, the largest first; ``None`` where none has one."""
    known = [one for one in ordered(report) if one.auroc.value is not None]
    if not known:
        return None
    ends = [
        end for one in known for end in (one.auroc.value, one.auroc.low, one.auroc.high) if end is not None
    ]
    scale = linear([0.5, *ends], lambda value: f"{value:g}")
    scale = linear([max(0.0, scale.low), min(1.0, scale.high)], lambda value: f"{value:g}")
    return {
        "scale": scale,
        "guides": [(scale.at(0.5), "chance")],
        "rows": [_row(one, scale) for one in known],
    }


def _row(one: ScoreEvaluation, scale: Scale) -> dict[str, Any]:
    found = one.auroc
    assert found.value is not None
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return {
        "system": one.name,
        "name": found.note,
        "kind": "sure" if found.low is not None and found.low > 0.5 else "unsure",
        "told": ranged(found),
        "level": f"{100 * LEVEL:.4g} %" if found.low is not None else "no interval",
        "value": scale.at(found.value),
        "low": scale.at(low),
        "high": scale.at(high),
        "beyond_low": False,
        "beyond_high": False,
        "band": None,
    }


def risk_chart(shown: Sequence[ScoreEvaluation], error_rate: float) -> dict[str, Any]:
    """Return error rate against the share of answers kept, with the perfect order and chance."""
    lines = [
        (one.name, one.curves.coverage[_FIRST:], one.curves.risk[_FIRST:])
        for one in shown
        if one.curves is not None
    ]
    top = max([error_rate, *(max(risk) for _, _, risk in lines)])
    y = linear([0.0, top], lambda value: f"{100 * value:g} %")
    y = Scale(0.0, y.high, tuple(_upward(y)))
    coverage = [place / 100 for place in range(1, 101)]
    perfect = [max(0.0, 1.0 - (1.0 - error_rate) / kept) for kept in coverage]
    return {
        "x": _UNIT,
        "y": y,
        "least": f"{_FIRST + 1} %",
        "lines": [
            {"name": name, "kind": f"s{place}", "path": _path(x, risk, _UNIT, y), "at": _at(x, risk)}
            for place, (name, x, risk) in enumerate(lines)
        ],
        "guides": [
            {"name": "perfect order", "kind": "perfect", "path": _path(coverage, perfect, _UNIT, y)},
            {"name": "by chance", "kind": "chance", "path": _path([0, 1], [error_rate] * 2, _UNIT, y)},
        ],
        "perfect": _at(coverage, perfect),
        "chance": [figure(error_rate)] * len(COVERAGES),
    }


def roc_chart(shown: Sequence[ScoreEvaluation]) -> dict[str, Any]:
    """Return the share of wrong answers found against that of right ones flagged."""
    return {
        "x": _UNIT,
        "y": _UNIT,
        "lines": [
            {
                "name": one.name,
                "kind": f"s{place}",
                "path": _path(one.curves.false_alarms, one.curves.found, _UNIT, _UNIT),
                "at": _found_at(one.curves.false_alarms, one.curves.found),
            }
            for place, one in enumerate(shown)
            if one.curves is not None
        ],
        "guides": [{"name": "by chance", "kind": "chance", "path": _path([0, 1], [0, 1], _UNIT, _UNIT)}],
    }


def reliability_chart(bins: Sequence[ReliabilityBin]) -> dict[str, Any]:
    """Return accuracy against probability: a mark with its interval for each bin."""
    marks = []
    for one in bins:
        assert one.right.value is not None
        low, high = (one.right.value if end is None else end for end in (one.right.low, one.right.high))
        marks.append(
            {
                "x": _UNIT.at(one.probability),
                "y": _down(_UNIT.at(one.right.value)),
                "low": _down(_UNIT.at(low)),
                "high": _down(_UNIT.at(high)),
                "probability": figure(one.probability),
                "right": ranged(one.right),
                "n": one.right.n,
            }
        )
    return {
        "x": _UNIT,
        "y": _UNIT,
        "lines": [],
        "guides": [{"name": "honest", "kind": "chance", "path": _path([0, 1], [0, 1], _UNIT, _UNIT)}],
        "marks": marks,
    }


def bars(histogram: Histogram) -> dict[str, Any]:
    """Return the spread of a score over right answers, upward, and over wrong ones, downward."""
    low, high = histogram.edges[0], histogram.edges[-1]
    x = linear([low, high], number)
    x = Scale(low, high, tuple(_inside(x, low, high)))
    top = max((*histogram.right, *histogram.wrong)) or 1.0
    width = 100.0 / len(histogram.right)
    return {
        "x": x,
        "top": f"{100 * top:.2g} %",
        "bars": [
            {
                "x": round(place * width + 0.08 * width, 3),
                "width": round(0.84 * width, 3),
                "right": round(50.0 * right / top, 3),
                "wrong": round(50.0 * wrong / top, 3),
            }
            for place, (right, wrong) in enumerate(zip(histogram.right, histogram.wrong, strict=True))
        ],
        "rows": [
            (
                f"{number(histogram.edges[place])} to {number(histogram.edges[place + 1])}",
                f"{100 * right:.1f} %",
                f"{100 * wrong:.1f} %",
            )
            for place, (right, wrong) in enumerate(zip(histogram.right, histogram.wrong, strict=True))
            if right or wrong
        ],
    }


def _path(x: Sequence[float], y: Sequence[float], across: Scale, up: Scale) -> str:
    places = zip(x, y, strict=True)
    return "M" + "L".join(f"{across.at(a):g} {_down(up.at(b)):g}" for a, b in places)


def _down(place: float) -> float:
    return round(100.0 - place, 2)


def _upward(scale: Scale) -> list[tuple[float, str]]:
    """The ticks of an axis that is cut to start at 0."""
    return _inside(scale, 0.0, scale.high)


def _inside(scale: Scale, low: float, high: float) -> list[tuple[float, str]]:
    cut = Scale(low, high, ())
    found = []
    for place, label in scale.ticks:
        value = scale.low + place / 100.0 * (scale.high - scale.low)
        if low - 1e-4 * (high - low) <= value <= high + 1e-4 * (high - low):
            found.append((cut.at(value), label))
    return found


def _at(x: Sequence[float], y: Sequence[float]) -> list[str]:
    """The values at the coverages that the table has."""
    return [figure(y[min(range(len(x)), key=lambda place: abs(x[place] - kept))]) for kept in COVERAGES]


def _found_at(alarms: Sequence[float], found: Sequence[float]) -> list[str]:
    """The share found at false-alarm rates of 5, 10 and 20 %, at most."""
    best = []
    for most in (0.05, 0.1, 0.2):
        held = [b for a, b in zip(alarms, found, strict=True) if a <= most + 1e-12]
        best.append(figure(max(held, default=math.nan)))
    return best
