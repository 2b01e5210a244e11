"""The numbers that a gate can be calibrated on: one for a generation, larger where it looks worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cert.core.errors import ConfigurationError
from cert.signals import GenerationSignals, RunningSignals, StepSignals

__all__ = ["SCORES", "GateScore", "RunningPath", "Score", "needs_full_vocabulary", "path_of", "score_named"]


@dataclass(frozen=True, slots=True)
class RunningPath:
    """How a score comes about token by token, where it can only rise on the way.

    Such a score can be watched while a generation runs: it is above a threshold at the end if and only if it
    was above it at some token, so that a threshold for whole answers holds whenever one stops.

    Attributes:
        column: the field of `StepSignals` or `RunningSignals` that each token adds.
        sign: 1, or -1 where the column is turned round first.
        accumulate: the largest value so far, the sum so far, or the last value of a column that never falls.
    """

    column: str
    accumulate: Literal["max", "sum", "last"]
    sign: Literal[1, -1] = 1

    def running(self, step: StepSignals, running: RunningSignals) -> NDArray[np.float64]:
        """Return the score of the tokens up to each, (T,); NaN from one on that was not measured."""
        source: Any = step if hasattr(step, self.column) else running
        column = self.sign * getattr(source, self.column) + 0.0
        if self.accumulate == "sum":
            return np.add.accumulate(column)
        return np.asarray(np.maximum.accumulate(column))


class GateScore(Protocol):
    """One number for a generation, larger where it looks worse, NaN where it was not measured."""

    @property
    def name(self) -> str:
        """The name of it, for users and certificates."""
        ...

    def of(self, signals: GenerationSignals) -> float:
        """Return the score of one generation."""
        ...

    def column_of(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return the scores of (n,) generations, with the bits that `of` gives."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """A signal of a whole generation, turned so that larger is worse.

    Attributes:
        name: for users and certificates.
        column: the field of `GenerationSignals` that it is read from.
        sign: 1 where large values of the column are bad, -1 where small ones are.
        truncated: what it is where only the top K were seen: the same (``exact``), its lower bound, which
            is valid as a score as it stands, or not measured at all.
        path: how it rises from token to token; ``None`` where it may fall again, as means do.
    """

    name: str
    column: str
    sign: Literal[1, -1]
    truncated: Literal["exact", "lower_bound", "not_measured"] = "exact"
    path: RunningPath | None = None

    def of(self, signals: GenerationSignals) -> float:
        """Return the score of one generation; NaN is not measured."""
        return self.sign * float(getattr(signals, self.column)) + 0.0

    def column_of(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return the scores of (n,) generations; NaN is not measured.

        Args:
            columns: as `cert.signals.signal_columns` gives them.
        """
        return np.asarray(self.sign * columns[self.column] + 0.0, dtype=np.float64)


_ALL = (
    Score("msp", "sequence_logprob", -1, path=RunningPath("surprisal", "sum")),
    Score("mean_surprisal", "mean_surprisal", 1),
    Score("max_surprisal", "max_surprisal", 1, path=RunningPath("surprisal", "max")),
    Score("mean_token_perplexity", "mean_token_perplexity", 1),
    Score("max_token_perplexity", "max_token_perplexity", 1, path=RunningPath("perplexity", "max")),
    Score("mean_entropy", "mean_entropy_lower", 1, "lower_bound"),
    Score("max_entropy", "max_entropy_lower", 1, "lower_bound", RunningPath("entropy_lower", "max")),
    Score("mean_top_k_entropy", "mean_top_k_entropy", 1),
    Score("max_top_k_entropy", "max_top_k_entropy", 1, path=RunningPath("top_k_entropy", "max")),
    Score("mean_margin", "mean_margin", -1),
    Score("min_margin", "min_margin", -1, path=RunningPath("margin", "max", -1)),
    Score("first_top_probability", "first_top_probability", -1),
    Score("mean_self_certainty", "mean_self_certainty", -1, "not_measured"),
    Score("mean_confidence", "mean_confidence", -1),
    Score("lowest_group_confidence", "lowest_group_confidence", -1),
    Score("bottom_group_confidence", "bottom_group_confidence", -1),
    Score("tail_confidence", "tail_confidence", -1),
    Score("final_surprise", "final_surprise", 1, path=RunningPath("cumulative_surprise", "last")),
    Score("surprise_per_token", "surprise_per_token", 1),
    Score("max_cusum", "max_cusum", 1, path=RunningPath("cusum", "max")),
)

SCORES: Mapping[str, Score] = {score.name: score for score in _ALL}
"""Every score of one pass, by name."""


def score_named(name: str) -> Score:
    """Return the score of a name.

    Raises:
        ConfigurationError: there is none; the message names those that there are.
    """
    if name not in SCORES:
        raise ConfigurationError(f"there is no score '{name}'", hint=f"one of {', '.join(SCORES)}")
    return SCORES[name]


def needs_full_vocabulary(score: GateScore) -> bool:
    """Say whether a score is not measured where only the top K candidates were seen."""
    parts = [SCORES[name] for name in getattr(score, "features", ()) if name in SCORES]
    return any(getattr(part, "truncated", "exact") == "not_measured" for part in (score, *parts))


def path_of(score: GateScore) -> RunningPath:
    """Return how a score rises from token to token.

    Raises:
        ConfigurationError: it may fall again, so that no alarm on the way is sure to stand at the end.
    """
    path = getattr(score, "path", None)
    if isinstance(path, RunningPath):
        return path
    rising = ", ".join(name for name, one in SCORES.items() if one.path is not None)
    raise ConfigurationError(
        f"'{score.name}' may fall again while a generation runs: there is no alarm on it",
        hint=f"for the goal 'streaming': one of {rising}",
    )
