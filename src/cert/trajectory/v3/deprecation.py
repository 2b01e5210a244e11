"""What the names of version 3 say when they are used."""

from __future__ import annotations

import warnings

from cert.trajectory.v3.rules import Rules

__all__ = ["RuleCannotFailWarning", "deprecated", "warn_of_rules"]

_GUIDE = "docs/how-to/migrate-from-v3.md"


class RuleCannotFailWarning(UserWarning):
    """A rule of version 3 that no generation can fail, so that passing it says nothing."""


def deprecated(name: str, replacement: str, *, stacklevel: int = 3) -> None:
    """Warn that a name is version 3's; the warning points at the caller of the function that calls this."""
    warnings.warn(
        f"{name} is version 3's: use {replacement}; see {_GUIDE}", DeprecationWarning, stacklevel=stacklevel
    )


def warn_of_rules(rules: Rules, vocab_size: int | None, *, stacklevel: int = 3) -> None:
    """Warn if the entropy rule can never fail, as with version 3's own defaults; points as `deprecated`."""
    if rules.entropy_can_fail(vocab_size):
        return
    ceiling = rules.entropy_ceiling(vocab_size)
    warnings.warn(
        f"version 3's entropy rule cannot fail: with top_k = {rules.config.top_k} the top-K entropy never "
        f"exceeds {ceiling:.3f} and the threshold is {rules.entropy_threshold:g}; the rule of "
        "HamiltonianMonitor is on the entropy of the full vocabulary, where such a threshold means something",
        RuleCannotFailWarning,
        stacklevel=stacklevel,
    )
