"""The four trajectories of the report: what each draws, its threshold, and one sentence about it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cert.core.visible import label
from cert.reporting.numbers import number
from cert.signals import StepSignals
from cert.signals.steps import FloatArray
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["bounded", "charts", "rounded"]


def charts(analysis: TrajectoryAnalysis) -> list[dict[str, Any]]:
    """Return the charts in order, each with what the script needs to draw it."""
    config, step = analysis.config, analysis.step
    # Where a certificate decides, the config's thresholds are no rules.
    fixed = analysis.decision.certificate is None
    perplexity, entropy, surprise = (
        value if fixed else None
        for value in (config.perplexity_threshold, config.entropy_threshold, config.surprise_threshold)
    )
    exact = not bounded(step)
    below = config.surprise_probability_threshold
    return [
        _chart(
            analysis,
            "surprisal",
            step.surprisal,
            title="Uncertainty",
            unit="surprisal in nats, perplexity on the right",
            note="Where one token has that perplexity" + ("; the rule is on the mean." if fixed else "."),
            guide=None if perplexity is None else math.log(perplexity),
            guide_label="" if perplexity is None else f"threshold {perplexity:g}",
        ),
        _chart(
            analysis,
            "entropy",
            step.entropy_lower,
            title="Spread",
            unit="entropy in nats" if exact else "bounds of the entropy in nats",
            note="How evenly the probability lies over the vocabulary, before the choice."
            if exact
            else "Only the likeliest tokens were seen: the truth lies within the band.",
            guide=entropy,
            guide_label="" if entropy is None else f"threshold {entropy:g}",
        ),
        _chart(
            analysis,
            "energy",
            analysis.energy,
            title="Energy",
            unit="both of the above, each divided by its threshold",
            note="The two in one curve; no rule is set on it.",
            guide=1.0,
            guide_label="one of them alone at its threshold",
            advisory=True,
        ),
        _chart(
            analysis,
            "cumulative",
            analysis.running.cumulative_surprise,
            title="Cumulative surprise",
            unit=f"nats, summed over tokens less likely than {below:g}",
            note="Grows with length" + ("; the rule is on its last value." if fixed else "."),
            guide=surprise,
            guide_label="" if surprise is None else f"threshold {surprise:g}",
            stepped=True,
        ),
    ]


def bounded(step: StepSignals) -> bool:
    """Whether only bounds of the entropy are known, for some token at least."""
    return bool((np.isfinite(step.entropy_lower) & (step.entropy_lower != step.entropy_upper)).any())


def rounded(values: FloatArray) -> list[float | None]:
    """Five significant digits, which is more than a screen resolves; ``None`` for what is not measured."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]


def _chart(
    analysis: TrajectoryAnalysis,
    key: str,
    values: FloatArray,
    *,
    title: str,
    unit: str,
    note: str,
    guide: float | None,
    guide_label: str,
    stepped: bool = False,
    advisory: bool = False,
) -> dict[str, Any]:
    finite = [index for index, value in enumerate(values.tolist()) if math.isfinite(value)]
    summary = "not measured"
    if finite:
        peak = max(finite, key=lambda index: float(values[index]))
        token = label(analysis.generation.tokens[peak], 16)
        summary = f"highest {number(float(values[peak]))} at token {peak} ‘{token}’"
        if stepped:
            summary = f"ends at {number(float(values[finite[-1]]))}"
    return {
        "key": key,
        "title": title,
        "unit": unit,
        "note": note,
        "measured": bool(finite),
        "summary": summary,
        "guide": guide,
        "guide_label": guide_label,
        "stepped": stepped,
        "advisory": advisory,
    }
