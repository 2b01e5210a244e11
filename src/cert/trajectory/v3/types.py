"""What version 3 was told and what it answered, by its names and meanings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from cert.backends.base import Prompt
from cert.trajectory.gate import GateDecision, Verdict, json_number
from cert.trajectory.types import ReasoningMetrics
from cert.trajectory.types import TrajectoryAnalysis as CurrentAnalysis
from cert.trajectory.types import TrajectoryConfig as CurrentConfig
from cert.trajectory.v3.rules import Rules

__all__ = ["TrajectoryAnalysis", "TrajectoryConfig"]

# Version 3 had no limit of its own.
_NO_LIMIT = 2**31
_METRICS = ("step", "token", "perplexity", "top_k_entropy", "logit_gap", "cumulative_surprise")


@dataclass(frozen=True, slots=True)
class TrajectoryConfig:
    """Settings of version 3, with its defaults.

    Attributes:
        perplexity_threshold: for the mean of the per-token perplexities.
        entropy_threshold: for the largest top-K entropy of a step, in nats. The default cannot fail at
            K = 10, where that entropy never exceeds ln 10 = 2.303.
        surprise_threshold: for the cumulative surprise at the end, in nats.
        max_new_tokens: generate at most so many tokens.
        temperature: of sampling; 0 is greedy.
        top_k: K, the candidates whose entropy is taken. It has no part in sampling.
        surprise_probability_threshold: a token less likely than this counts as a surprise.

    Raises:
        ConfigurationError: a value outside its range.
    """

    perplexity_threshold: float | None = 50.0
    entropy_threshold: float | None = 2.5
    surprise_threshold: float | None = 10.0
    max_new_tokens: int = 150
    temperature: float = 0.7
    top_k: int = 10
    surprise_probability_threshold: float = 0.1

    def __post_init__(self) -> None:
        self.to_rules()

    def to_rules(self) -> Rules:
        """Return the same settings in version 4's form, with version 3's rules."""
        return Rules(CurrentConfig(**self.to_dict(), max_prompt_chars=_NO_LIMIT))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self)


def rules_of(config: TrajectoryConfig | CurrentConfig | None) -> Rules:
    """Return the rules of a config of either version; of none, those of version 3's defaults."""
    if isinstance(config, CurrentConfig):
        return Rules(config)
    return (config or TrajectoryConfig()).to_rules()


@dataclass(frozen=True, eq=False)
class TrajectoryAnalysis:
    """One watched generation by version 3's names, NaN where nothing was measured.

    Attributes:
        analysis: the same generation as version 4 reports it, with its own rules and verdict.
        rules: version 3's rules that were applied.
        decision: their verdict and reasons.
    """

    analysis: CurrentAnalysis
    rules: Rules
    decision: GateDecision = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decision", self.rules.decide(self.analysis))

    @property
    def verdict(self) -> Verdict:
        """What version 3's rules say: pass, fail or not_measured."""
        return self.decision.verdict

    @property
    def passed_quality_check(self) -> bool:
        """True for the verdict ``pass`` alone."""
        return self.verdict == "pass"

    @property
    def model_name(self) -> str:
        """The model, as it was named when it was loaded."""
        return self.analysis.model_name

    @property
    def prompt(self) -> Prompt | None:
        """What was asked."""
        return self.analysis.generation.prompt

    @property
    def generated_text(self) -> str:
        """The generated text, without special tokens."""
        return self.analysis.generated_text

    @cached_property
    def metrics(self) -> list[ReasoningMetrics]:
        """The signals token by token; the token that ended the answer is not among them."""
        return list(self.analysis.metrics)

    @property
    def generation_steps(self) -> int:
        """The number of generated tokens, without the one that ended the answer."""
        return self.analysis.generation_steps

    @property
    def avg_perplexity(self) -> float:
        """Mean of 1 / p(y) over the tokens."""
        return self.analysis.signals.mean_token_perplexity

    @property
    def max_perplexity(self) -> float:
        """Largest 1 / p(y)."""
        return self.analysis.signals.max_token_perplexity

    @property
    def avg_entropy(self) -> float:
        """Mean **top-K** entropy in nats; version 4's attribute of this name is over the full vocabulary."""
        return self.analysis.signals.mean_top_k_entropy

    @property
    def max_entropy(self) -> float:
        """Largest **top-K** entropy in nats; as `avg_entropy` otherwise."""
        return self.analysis.signals.max_top_k_entropy

    @property
    def final_surprise(self) -> float:
        """Cumulative surprise at the end, in nats."""
        return self.analysis.signals.final_surprise

    @property
    def perplexity_threshold(self) -> float | None:
        """The threshold for ``avg_perplexity``."""
        return self.rules.config.perplexity_threshold

    @property
    def entropy_threshold(self) -> float | None:
        """The threshold for ``max_entropy``."""
        return self.rules.entropy_threshold

    @property
    def surprise_threshold(self) -> float | None:
        """The threshold for ``final_surprise``."""
        return self.rules.config.surprise_threshold

    @property
    def timestamp(self) -> str:
        """When it was made: UTC, RFC 3339."""
        return self.analysis.created_at

    @property
    def entropy_rule_could_fail(self) -> bool:
        """Whether any generation could have failed the entropy rule; by version 3's defaults none could."""
        return self.rules.entropy_can_fail(self.analysis.generation.model.vocab_size)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data in version 3's layout, and the verdict with its reasons.

        ``None`` stands for what is not measured; infinite numbers are ``"Infinity"``.
        """
        summary = ("avg_perplexity", "max_perplexity", "avg_entropy", "max_entropy", "final_surprise")
        prompt: Any = self.prompt
        if isinstance(prompt, tuple):
            prompt = [asdict(message) for message in prompt]
        return {
            "model_name": self.model_name,
            "prompt": prompt,
            "generated_text": self.generated_text,
            "passed_quality_check": self.passed_quality_check,
            "verdict": self.verdict,
            "reasons": [check.reason for check in self.decision.checks],
            "entropy_rule_could_fail": self.entropy_rule_could_fail,
            "summary": {name: json_number(getattr(self, name)) for name in summary}
            | {"generation_steps": self.generation_steps},
            "thresholds": {
                "perplexity": self.perplexity_threshold,
                "entropy": self.entropy_threshold,
                "surprise": self.surprise_threshold,
            },
            "metrics": [_row(metrics) for metrics in self.metrics],
            "timestamp": self.timestamp,
        }


def _row(metrics: ReasoningMetrics) -> dict[str, Any]:
    whole = metrics.to_dict()
    return {name: whole[name] for name in _METRICS}
