"""Comparisons whose truth is known, to try the statistics on, or a plan for an experiment.

`Discordant` makes binary pairs of given discordance, `Qualities` scores with judge noise, replicates and
several agents. Both make tasks of one source alike by a Gaussian copula, which leaves every marginal, and so
the truth, exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cert.coordination.statistics.distributions import normal_cdf, normal_quantile
from cert.coordination.statistics.pairs import Floats, Integers
from cert.core.errors import InputError

__all__ = ["Discordant", "Qualities", "Simulated"]


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """One simulated comparison.

    Attributes:
        coordinated, baseline: (T, R) scores, NaN where a judgement is missing.
        agents: (T, R, A) scores of the independent agents.
        sources: (T,) numbers of the sources.
    """

    coordinated: Floats
    baseline: Floats
    agents: Floats
    sources: Integers


@dataclass(frozen=True, slots=True)
class Discordant:
    """Binary pairs: with probability ``gained`` right in the coordinated arm only, ``lost`` in the other.

    Attributes:
        gained, lost: discordance; their difference is the effect.
        both: probability that both arms are right, by default half of what is left.
        graded: the scores are not 0 and 1: both arms have ½, and where they differ the coordinated arm has
            up to ½ more or less, evenly spread; an effect is a quarter of what it is else.
        source_size: tasks of a source.
        alike: correlation of the latent normal numbers of a source's tasks, in [0, 1].
        missing: probability that a judgement is missing, independent of all else.
    """

    gained: float
    lost: float
    both: float | None = None
    graded: bool = False
    source_size: int = 1
    alike: float = 0.0
    missing: float = 0.0

    @property
    def effect(self) -> float:
        """Of the coordination: the true mean difference."""
        return (self.gained - self.lost) * (0.25 if self.graded else 1.0)

    @property
    def gamma(self) -> float:
        """The true ratio of means."""
        if self.graded:
            return 1.0 + 2.0 * self.effect
        return (self._both + self.gained) / (self._both + self.lost)

    @property
    def _both(self) -> float:
        return (1.0 - self.gained - self.lost) / 2.0 if self.both is None else self.both

    def draw(self, tasks: int, rng: np.random.Generator) -> Simulated:
        """Draw the pairs; agents are the baseline alone."""
        sources = np.arange(tasks) // self.source_size
        z = _latent(rng, sources, self.alike)
        # From low to high: gained, both wrong, both right, lost. So that sources carry the discordance.
        bounds = np.array([self.gained, 1.0 - self.lost - self._both, 1.0 - self.lost])
        kind = np.searchsorted([normal_quantile(float(b)) for b in bounds], z)
        coordinated = np.isin(kind, (0, 2)).astype(np.float64)[:, None]
        baseline = np.isin(kind, (2, 3)).astype(np.float64)[:, None]
        if self.graded:
            coordinated = 0.5 + (coordinated - baseline) * rng.uniform(0.0, 0.5, coordinated.shape)
            baseline = np.full_like(coordinated, 0.5)
        _lose(rng, self.missing, coordinated, baseline)
        return Simulated(coordinated, baseline, baseline[:, :, None], sources)


@dataclass(frozen=True, slots=True)
class Qualities:
    """Scores around a task's true quality q in [.3, .7]; the coordinated arm's is q + effect ± ``varied``.

    Attributes:
        effect: the true mean difference, within ±0.2.
        varied: how far a task's own effect lies from it at most, up to 0.1.
        noise: ``beta`` for scores of a judge with a standard deviation of about half of ``spread`` at q = ½,
            ``binary`` for right and wrong.
        spread: of the judge, in (0, 1): the share of the largest variance q(1 − q) is its square.
        replicates: R.
        agents: A of the independent agents, all as good as the baseline.
        better: by how much the first of them is better than the others.
        source_size, alike, missing: as for `Discordant`.
    """

    effect: float = 0.0
    varied: float = 0.1
    noise: Literal["beta", "binary"] = "beta"
    spread: float = 0.4
    replicates: int = 1
    agents: int = 3
    better: float = 0.0
    source_size: int = 1
    alike: float = 0.0
    missing: float = 0.0

    def __post_init__(self) -> None:
        largest = 0.3
        if max(abs(self.effect) + self.varied, abs(self.better)) > largest:
            raise InputError("effect ± varied, or better, leaves [0, 1] for qualities in [.3, .7]")

    @property
    def gamma(self) -> float:
        """The true ratio of means to the baseline."""
        return (0.5 + self.effect) / 0.5

    def draw(self, tasks: int, rng: np.random.Generator) -> Simulated:
        """Draw scores of all arms."""
        sources = np.arange(tasks) // self.source_size
        quality = 0.3 + 0.4 * normal_cdf(_latent(rng, sources, self.alike))
        own = self.varied * (2.0 * normal_cdf(_latent(rng, sources, self.alike)) - 1.0)
        shape = (tasks, self.replicates)
        coordinated = self._judged(rng, np.broadcast_to((quality + self.effect + own)[:, None], shape))
        baseline = self._judged(rng, np.broadcast_to(quality[:, None], shape))
        ability = np.zeros(self.agents)
        ability[:1] = self.better
        agents = self._judged(rng, np.broadcast_to(quality[:, None, None] + ability, (*shape, self.agents)))
        _lose(rng, self.missing, coordinated, baseline, agents)
        return Simulated(coordinated, baseline, agents, sources)

    def _judged(self, rng: np.random.Generator, mean: Floats) -> Floats:
        if self.noise == "binary":
            right: Floats = (rng.random(mean.shape) < mean).astype(np.float64)
            return right
        weight = 1.0 / self.spread**2 - 1.0  # Var = q(1 − q)/(weight + 1)
        scores: Floats = rng.beta(mean * weight, (1.0 - mean) * weight)
        return scores


def _latent(rng: np.random.Generator, sources: Integers, alike: float) -> Floats:
    own = rng.standard_normal(len(sources))
    if alike == 0.0:
        return own
    shared = rng.standard_normal(int(sources.max(initial=-1)) + 1)[sources]
    return math.sqrt(alike) * shared + math.sqrt(1.0 - alike) * own


def _lose(rng: np.random.Generator, missing: float, *arms: Floats) -> None:
    if missing > 0.0:
        for scores in arms:
            scores[rng.random(scores.shape) < missing] = np.nan
