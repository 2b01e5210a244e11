"""The table of signals in the report: names, units and one plain sentence for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cert.reporting.numbers import interval, number, probability
from cert.signals import GenerationSignals
from cert.trajectory.types import TrajectoryConfig

__all__ = ["signal_groups"]


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    field: str
    unit: str
    meaning: str
    upper: str = ""


_GROUPS: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    (
        "Likelihood of the text",
        (
            _Row(
                "Sequence log-probability",
                "sequence_logprob",
                "nats",
                "Of the whole text; falls with length.",
            ),
            _Row(
                "Perplexity",
                "perplexity",
                "",
                "exp of the mean surprisal: as unsure as a choice among so many.",
            ),
            _Row("Mean surprisal", "mean_surprisal", "nats", "−log p of the chosen token, averaged."),
            _Row("Largest surprisal", "max_surprisal", "nats", "Of the least likely token."),
            _Row(
                "Mean token perplexity",
                "mean_token_perplexity",
                "",
                "Mean of 1 / p; one rare token rules it.",
            ),
            _Row("Largest token perplexity", "max_token_perplexity", "", "1 / p of the least likely token."),
        ),
    ),
    (
        "Spread of the choice",
        (
            _Row(
                "Mean entropy",
                "mean_entropy_lower",
                "nats",
                "Over the full vocabulary, before the choice.",
                "mean_entropy_upper",
            ),
            _Row(
                "Largest entropy",
                "max_entropy_lower",
                "nats",
                "Of the least decided step.",
                "max_entropy_upper",
            ),
            _Row("Mean top-K entropy", "mean_top_k_entropy", "nats", "Of the K likeliest alone (EPR)."),
            _Row("Largest top-K entropy", "max_top_k_entropy", "nats", "Cannot exceed log K."),
            _Row("Mean margin", "mean_margin", "", "Likeliest minus second likeliest probability."),
            _Row("Smallest margin", "min_margin", "", "Near 0: two tokens were level somewhere."),
        ),
    ),
    (
        "Confidence",
        (
            _Row("First-token probability", "first_top_probability", "p", "Of the likeliest first token."),
            _Row(
                "Mean self-certainty",
                "mean_self_certainty",
                "nats",
                "Distance from an even spread; high is sure.",
            ),
            _Row(
                "Mean confidence",
                "mean_confidence",
                "nats",
                "DeepConf: mean −log p of the K likeliest; high is sure.",
            ),
            _Row(
                "Lowest group confidence",
                "lowest_group_confidence",
                "nats",
                "Of the weakest stretch of tokens.",
            ),
            _Row(
                "Bottom 10 % confidence", "bottom_group_confidence", "nats", "Mean of the weakest stretches."
            ),
            _Row("Tail confidence", "tail_confidence", "nats", "Of the last tokens."),
        ),
    ),
    (
        "Surprise over time",
        (
            _Row(
                "Cumulative surprise",
                "final_surprise",
                "nats",
                "Sum over tokens less likely than {surprise:g}.",
            ),
            _Row(
                "Surprise per token",
                "surprise_per_token",
                "nats",
                "The same divided by the number of tokens.",
            ),
            _Row(
                "Largest CUSUM",
                "max_cusum",
                "nats",
                "Largest build-up of surprisal above {drift:g} nats a token.",
            ),
        ),
    ),
)


def signal_groups(signals: GenerationSignals, config: TrajectoryConfig) -> list[dict[str, Any]]:
    """Return the rows by group, with values as text."""
    return [
        {
            "title": title,
            "rows": [
                {
                    "name": row.name,
                    "value": _value(signals, row),
                    "unit": "" if row.unit == "p" else row.unit,
                    "meaning": row.meaning.format(
                        surprise=config.surprise_probability_threshold,
                        drift=config.signal_options.cusum_drift,
                    ),
                }
                for row in rows
            ],
        }
        for title, rows in _GROUPS
    ]


def _value(signals: GenerationSignals, row: _Row) -> str:
    value = getattr(signals, row.field)
    if row.unit == "p":
        return probability(value)
    return interval(value, getattr(signals, row.upper)) if row.upper else number(value)
