"""Which of the bins between old scores a new one falls into, ties included, as chance would have it."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np

from cert.trajectory.calibration.ranks import ScoreRanks

__all__ = ["Bins", "uniform"]

_MOST: Final = 20


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of a test.

    Equal scores are told apart by chance, the old and the new ones alike, so that ranks are uniform where
    there are ties too. What chance said of the old ones is fixed by the seed.

    Attributes:
        gaps: (B,) what goes into `ShiftTest`.
        cuts: (B − 1,) the scores between bins, rising.
        places: (B − 1,) where each cut stands among the scores that are equal to it, in (0, 1): a new one
            that is equal to it too falls below with this chance.
    """

    gaps: tuple[int, ...]
    cuts: tuple[float, ...]
    places: tuple[float, ...]

    @classmethod
    def of(cls, ranks: ScoreRanks, seed: int, most: int = _MOST, up_to: float = 1.0) -> Self | None:
        """Return bins of about equal chances below a share of the ranks, and one for all above it.

        Args:
            ranks: of the old scores.
            seed: decides ties.
            most: at most so many bins up to the highest rank.
            up_to: no bin begins above this share of the ranks. What is cut is chosen by ranks alone, since a
                choice by scores would not be independent of where they lie.

        Returns:
            ``None`` where there are too few scores for two bins.
        """
        wanted = {math.ceil(ranks.n * step / most) for step in range(1, most) if step / most <= up_to}
        kept = {rank: place for place, rank in enumerate(ranks.ranks)}
        chosen = sorted({kept[rank] for rank in wanted if rank in kept})
        if not chosen:
            return None
        numbers = [ranks.ranks[place] for place in chosen]
        edges = [0, *numbers, ranks.n + 1]
        return cls(
            gaps=tuple(b - a for a, b in pairwise(edges)),
            cuts=tuple(ranks.values[place] for place in chosen),
            places=tuple(_places(ranks, chosen, seed)),
        )

    def place(self, score: float, chance: float) -> int:
        """Return the bin of a score; NaN is above every number, and equal to another NaN.

        Args:
            score: the new one.
            chance: a number in [0, 1) from which the order among equal scores comes.
        """
        value = math.inf if math.isnan(score) else score
        first, behind = bisect_left(self.cuts, value), bisect_right(self.cuts, value)
        return first + sum(place < chance for place in self.places[first:behind])


def _places(ranks: ScoreRanks, chosen: Sequence[int], seed: int) -> list[float]:
    # Among m equal scores the k-th by chance stands where the k-th smallest of m uniform numbers does.
    found: dict[int, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    places = []
    for place in chosen:
        below, equal = ranks.below[place], ranks.at_most[place] - ranks.below[place]
        if below not in found:
            found[below] = np.sort(np.random.default_rng((seed, below)).random(equal))
        places.append(float(found[below][ranks.ranks[place] - below - 1]))
    return places


def uniform(seed: int, number: int) -> float:
    """Return the number-th of the uniform numbers of a seed, in [0, 1), without the ones before."""
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53
