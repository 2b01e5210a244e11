"""The gate of version 3: its three rules on a generation that version 4 measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cert.signals import top_k_entropy_ceiling
from cert.trajectory.gate import Check, GateDecision, Thresholds, decide
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["Rules"]

# Names the set of thresholds in results; ``v3`` alone is version 4's profile, whose entropy is another.
PROFILE = "v3, top-K entropy"


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings in version 4's form, and the rules that version 3 makes of them.

    Version 3 called the top-K entropy ``entropy``: its ``entropy_threshold`` is for the largest of them.

    Attributes:
        config: settings, with ``entropy_threshold`` as the user gave it.
    """

    config: TrajectoryConfig

    @property
    def entropy_threshold(self) -> float | None:
        """The threshold for the largest top-K entropy, in nats."""
        named = self.config.top_k_entropy_threshold
        return self.config.entropy_threshold if named is None else named

    def entropy_ceiling(self, vocab_size: int | None) -> float:
        """Return what the top-K entropy can never exceed, in nats."""
        kept = self.config.top_k if vocab_size is None else min(self.config.top_k, vocab_size)
        return top_k_entropy_ceiling(kept)

    def entropy_can_fail(self, vocab_size: int | None) -> bool:
        """Whether some distribution is above the threshold; true where there is no rule."""
        threshold = self.entropy_threshold
        return threshold is None or threshold < self.entropy_ceiling(vocab_size)

    def current_config(self, vocab_size: int | None) -> TrajectoryConfig:
        """Return settings that `HamiltonianMonitor` takes for this vocabulary.

        It refuses a threshold that the full entropy never exceeds, so that one is left out there.
        """
        threshold = self.config.entropy_threshold
        if vocab_size is None or threshold is None or threshold < math.log(vocab_size):
            return self.config
        return replace(self.config, entropy_threshold=None)

    def decide(self, analysis: TrajectoryAnalysis) -> GateDecision:
        """Apply the rules; a check that could not fail says so in its reason."""
        thresholds = Thresholds(
            perplexity=self.config.perplexity_threshold,
            entropy=None,
            top_k_entropy=self.entropy_threshold,
            surprise=self.config.surprise_threshold,
        )
        generation = analysis.generation
        decision = decide(
            analysis.step, analysis.signals, thresholds, tokens=generation.tokens, profile=PROFILE
        )
        vocab_size = generation.model.vocab_size
        if self.entropy_can_fail(vocab_size):
            return decision
        ceiling = self.entropy_ceiling(vocab_size)
        return replace(decision, checks=tuple(_marked(check, ceiling) for check in decision.checks))


def _marked(check: Check, ceiling: float) -> Check:
    if check.signal != "top_k_entropy":
        return check
    return replace(
        check, reason=f"{check.reason}; this rule could not fail: at most {ceiling:.3f} is reachable"
    )
