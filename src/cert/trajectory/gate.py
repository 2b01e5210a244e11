"""The gate: threshold rules on the signals of a generation, a verdict, and the reasons for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from cert.core.visible import label
from cert.signals import GenerationSignals, StepSignals
from cert.signals.steps import FloatArray

__all__ = ["CertifiedBy", "Check", "GateDecision", "Thresholds", "Verdict", "decide", "json_number"]

Verdict: TypeAlias = Literal["pass", "fail", "undecided", "not_measured"]

# What decides when rules disagree: a failure is a failure whatever else is unknown, and a rule that could
# not be measured leaves no ground for a pass.
_PRECEDENCE: tuple[Verdict, ...] = ("fail", "not_measured", "undecided", "pass")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The largest values that pass; ``None`` leaves a rule out.

    Attributes:
        perplexity: for the mean of the per-token perplexities 1 / p(y).
        entropy: for the largest entropy of a step, in nats.
        top_k_entropy: for the largest top-K entropy of a step, in nats.
        surprise: for the cumulative surprise at the end, in nats.
    """

    perplexity: float | None
    entropy: float | None
    top_k_entropy: float | None
    surprise: float | None


@dataclass(frozen=True, slots=True)
class Check:
    """One rule applied to one generation.

    Attributes:
        signal: the signal, as `StepSignals` and `GenerationSignals` name it.
        statistic: what is taken of it over the tokens: ``mean``, ``max`` or ``final``; ``score`` where the
            signal is a score of the whole answer, by which a calibrated gate decides.
        threshold: the largest value that passes; NaN where there is none for this answer.
        lower, upper: the value, or the bounds of it where only the top K were seen; NaN if not measured.
        outcome: ``undecided`` where the threshold lies between the bounds.
        token: index of the token with the largest value of the signal, counted from 0, or ``None``.
        reason: one sentence for people.
    """

    signal: str
    statistic: str
    threshold: float
    lower: float
    upper: float
    outcome: Verdict
    token: int | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data as `json_number` writes it."""
        data = asdict(self)
        for bound in ("threshold", "lower", "upper"):
            data[bound] = json_number(data[bound])
        return data


@dataclass(frozen=True, slots=True)
class CertifiedBy:
    """The certificate that decided, as a verdict names it.

    Attributes:
        id: of the certificate.
        goal, alpha, delta: its promise.
        promise: the same in words.
        signed_by: the public key of its signature in hexadecimal; ``None`` where it is not signed.
        unchecked: conditions that the certificate does not know, so that nobody compared them.
        waived: conditions that it knows and that were not compared, as the user wished.
        void: why its promise does not stand any more; ``None`` while nobody has refuted it.
    """

    id: str
    goal: str
    alpha: float
    delta: float | None
    promise: str
    signed_by: str | None = None
    unchecked: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    void: str | None = None

    @property
    def words(self) -> str:
        """Which certificate, and its promise."""
        return f"certificate {self.id[:12]}: {self.promise}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What its promise depends on and nobody compared."""
        lists = (("conditions not checked", self.unchecked), ("conditions waived", self.waived))
        return tuple(f"{what}: {', '.join(names)}" for what, names in lists if names)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self) | {"unchecked": list(self.unchecked), "waived": list(self.waived)}


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate says of one generation.

    Attributes:
        verdict: ``fail`` if a rule fails; else ``not_measured`` if one could not be measured (or there is
            none); else ``undecided`` if one is; else ``pass``.
        checks: every rule with its value and reason.
        profile: the name of the set of thresholds, or the id of the certificate.
        calibrated: whether the thresholds come with a promise that stands; false for every fixed set, and
            where the certificate's promise is void.
        certificate: the certificate that decided; ``None`` for a fixed set.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    profile: str
    calibrated: bool = False
    certificate: CertifiedBy | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """A void promise first; of the checks that did not pass, or of all when all passed."""
        reasons = tuple(c.reason for c in self.checks if c.outcome == self.verdict) or ("no rule is set",)
        void = None if self.certificate is None else self.certificate.void
        return reasons if void is None else (void, *reasons)

    def without_promise(self, why: str) -> GateDecision:
        """Return the same decision of a certificate whose promise is void."""
        if self.certificate is None:
            return self
        return replace(self, calibrated=False, certificate=replace(self.certificate, void=why))


def json_number(value: float) -> float | str | None:
    """Return a number as JSON can hold it: ``None`` if not measured, infinities by name."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def decide(
    step: StepSignals,
    signals: GenerationSignals,
    thresholds: Thresholds,
    *,
    tokens: Sequence[str],
    profile: str,
) -> GateDecision:
    """Apply the rules; a value passes if it is at most its threshold."""
    s = signals
    rules = (
        ("perplexity", "mean", thresholds.perplexity, s.mean_token_perplexity, s.mean_token_perplexity),
        ("entropy", "max", thresholds.entropy, s.max_entropy_lower, s.max_entropy_upper),
        ("top_k_entropy", "max", thresholds.top_k_entropy, s.max_top_k_entropy, s.max_top_k_entropy),
        ("cumulative_surprise", "final", thresholds.surprise, s.final_surprise, s.final_surprise),
    )
    checks = []
    for signal, statistic, threshold, lower, upper in rules:
        if threshold is None:
            continue
        outcome = _outcome(lower, upper, threshold)
        peak = _peaks(step, outcome).get(signal)
        measured = peak is not None and len(peak) > 0 and not np.isnan(peak).any()
        token = int(np.argmax(peak)) if peak is not None and measured else None
        where = (
            "" if token is None else f" at token {token} ‘{label(tokens[token].strip() or tokens[token])}’"
        )
        if token is not None and peak is not None and statistic == "mean":
            where = f" (highest {peak[token]:.4g}{where})"
        reason = _reason(signal, statistic, outcome, threshold, lower, upper, where)
        checks.append(Check(signal, statistic, threshold, lower, upper, outcome, token, reason))
    outcomes = {check.outcome for check in checks}
    verdict: Verdict = next((v for v in _PRECEDENCE if v in outcomes), "not_measured")
    return GateDecision(verdict, tuple(checks), profile)


def _peaks(step: StepSignals, outcome: Verdict) -> dict[str, FloatArray]:
    # What fails is where the lower bound is highest; what may still fail, where the upper one is.
    known = outcome == "fail" or bool(np.isnan(step.entropy_upper).any())
    return {
        "perplexity": step.perplexity,
        "entropy": step.entropy_lower if known else step.entropy_upper,
        "top_k_entropy": step.top_k_entropy,
    }


def _outcome(lower: float, upper: float, threshold: float) -> Verdict:
    if math.isnan(lower):
        return "not_measured"
    if lower > threshold:
        return "fail"
    # Without an upper bound (the size of the vocabulary is not known) a pass can't be told.
    return "pass" if upper <= threshold else "undecided"


def _reason(
    signal: str, statistic: str, outcome: Verdict, threshold: float, lower: float, upper: float, where: str
) -> str:
    name = {"mean": "mean ", "max": "", "final": ""}[statistic] + signal.replace("_", " ").replace(
        "top k", "top-K"
    )
    if outcome == "not_measured":
        return f"{name} not measured"
    if outcome == "fail":
        at_least = "" if lower == upper else "at least "
        return f"{name} {at_least}{lower:.4g} above {threshold:g}{where}"
    if outcome == "undecided":
        top = "unknown" if math.isnan(upper) else f"{upper:.4g}"
        return f"{name} between {lower:.4g} and {top}, threshold {threshold:g}{where}"
    return f"{name} {'' if lower == upper else 'at most '}{upper:.4g} within {threshold:g}{where}"
