"""How small an effect a comparison can find, and how many tasks it takes to find one.

An effect counts as found when the interval of the difference lies above the margin. With intervals of level
1 − α and power 1 − β the effect has to exceed the margin by (z_{1−α/2} + z_{1−β}) standard errors.
"""

from __future__ import annotations

import math
from typing import Final

from cert.coordination.statistics.distributions import normal_quantile
from cert.coordination.statistics.inference import FEW_CLUSTERS, Difference
from cert.core.errors import InputError

__all__ = ["discordance_spread", "minimum_detectable_effect", "tasks_for", "tasks_needed"]

_LOST_TO_FEW: Final = 2.0
_SMALLEST: Final = 1.0e-6


def minimum_detectable_effect(found: Difference, margin: float = 0.0, power: float = 0.8) -> float | None:
    """Return the effect that a repetition of this comparison would find with this power.

    It is margin + (value − low end) + z_power · standard error: the interval's own width, whichever method
    made it. ``None`` where the interval bounds nothing. Above 1 nothing can be found.
    """
    if found.value is None or found.interval.low <= -1.0:
        return None
    reach = found.value - found.interval.low
    error = found.standard_error
    if error is None:
        error = reach / normal_quantile((1.0 + found.interval.level) / 2.0)
    return margin + reach + normal_quantile(power) * error


def tasks_needed(
    found: Difference, effect: float, margin: float = 0.0, level: float = 0.95, power: float = 0.8
) -> int | None:
    """Return about how many tasks like these it takes, in all, to find an effect with this power.

    The variance is the observed one, raised by 1 + 2/m where m tasks differ, since few of them tell it badly.
    Sources keep their size. ``None`` where no variance is observed, which says nothing of the next task.

    Raises:
        InputError: the effect is not above the margin.
    """
    if found.standard_error is None or not found.discordant:
        return None
    variance = found.standard_error**2 * (1.0 + _LOST_TO_FEW / found.discordant) * found.tasks
    null = variance
    if found.interval.method == "score" and found.value is not None:
        # As much discordance, but with a difference that equals the margin; sources blow it up alike.
        alone = max(found.discordant / found.tasks - found.value**2, 1.0 / found.tasks)
        null = variance * max(found.discordant / found.tasks - margin**2, 1.0 / found.tasks) / alone
    needed = tasks_for(effect, math.sqrt(variance), margin, level, power, math.sqrt(null))
    few = math.ceil(FEW_CLUSTERS * found.tasks / found.sources) if found.interval.method != "score" else 2
    return max(needed, few)


def tasks_for(
    effect: float,
    spread: float,
    margin: float = 0.0,
    level: float = 0.95,
    power: float = 0.8,
    null_spread: float | None = None,
) -> int:
    """Return how many independent tasks find an effect.

    N = ((z_{1−α/2}·σ_0 + z_{1−β}·σ)/(effect − margin))² + z²/2.

    Args:
        effect: the true mean difference.
        spread: σ, the standard deviation of the differences of tasks: see `discordance_spread`.
        margin: that the interval has to lie above.
        level: of the interval.
        power: with which it does.
        null_spread: σ_0, that of a difference which equals the margin; by default σ. For right and wrong it
            differs: `discordance_spread` of the same discordance with that difference.

    Raises:
        InputError: the effect is not above the margin.
    """
    if not effect > margin + _SMALLEST:
        raise InputError(f"an effect of {effect} is not above the margin of {margin}: no number finds it")
    z = normal_quantile((1.0 + level) / 2.0)
    reach = z * (spread if null_spread is None else null_spread) + normal_quantile(power) * spread
    return math.ceil((reach / (effect - margin)) ** 2 + z * z / 2.0)


def discordance_spread(gained: float, lost: float) -> float:
    """Return the standard deviation of a binary difference: √(gained + lost − (gained − lost)²)."""
    return math.sqrt(max(0.0, gained + lost - (gained - lost) ** 2))
