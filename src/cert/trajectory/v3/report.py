"""One analysis as plain text: what was measured, what the rules say, and what that does not say."""

from __future__ import annotations

from collections.abc import Iterator

from cert.backends.base import Prompt
from cert.core.visible import label, runs
from cert.reporting.numbers import interval, number
from cert.trajectory.plots import verdict_phrase
from cert.trajectory.types import TrajectoryAnalysis as CurrentAnalysis
from cert.trajectory.v3.types import TrajectoryAnalysis

__all__ = ["text_report"]

_OUTCOMES = {
    "pass": "within",
    "fail": "above",
    "undecided": "undecided",
    "not_measured": "not measured",
}


def text_report(analysis: TrajectoryAnalysis | CurrentAnalysis) -> str:
    """Return the report of one analysis, of version 3 or 4.

    Characters of the prompt and the text that would not show, or would act on a terminal, are named.
    """
    return "\n".join(
        [*_head(analysis), "", *_rules(analysis), "", *_signals(analysis), "", *_texts(analysis)]
    )


def _current(analysis: TrajectoryAnalysis | CurrentAnalysis) -> CurrentAnalysis:
    return analysis if isinstance(analysis, CurrentAnalysis) else analysis.analysis


def _head(analysis: TrajectoryAnalysis | CurrentAnalysis) -> Iterator[str]:
    current, decision = _current(analysis), analysis.decision
    yield "Trajectory of a generation"
    yield ""
    yield f"Model    {label(current.model_name, 200)}"
    yield f"Created  {current.created_at}"
    yield f"Tokens   {current.generation_steps:,}"
    yield f"Verdict  {verdict_phrase(decision)}"
    yield ""
    if not decision.calibrated:
        yield f"The thresholds (profile {decision.profile}) are uncalibrated: no error rate belongs to them."
    yield "The signals say how unsure the model was. They do not say whether the text is true."


def _rules(analysis: TrajectoryAnalysis | CurrentAnalysis) -> Iterator[str]:
    yield "Rules"
    for check in analysis.decision.checks:
        yield f"  {_OUTCOMES[check.outcome]:<13} {check.reason}"
    if not analysis.decision.checks:
        yield "  none is set"


def _signals(analysis: TrajectoryAnalysis | CurrentAnalysis) -> Iterator[str]:
    signals = _current(analysis).signals
    rows = (
        ("Mean token perplexity", number(signals.mean_token_perplexity)),
        ("Largest token perplexity", number(signals.max_token_perplexity)),
        ("Mean entropy, nats", interval(signals.mean_entropy_lower, signals.mean_entropy_upper)),
        ("Largest entropy, nats", interval(signals.max_entropy_lower, signals.max_entropy_upper)),
        ("Mean top-K entropy, nats", number(signals.mean_top_k_entropy)),
        ("Largest top-K entropy, nats", number(signals.max_top_k_entropy)),
        ("Cumulative surprise, nats", number(signals.final_surprise)),
    )
    yield "Measured"
    for name, value in rows:
        yield f"  {name:<28} {value}"


def _texts(analysis: TrajectoryAnalysis | CurrentAnalysis) -> Iterator[str]:
    generation = _current(analysis).generation
    yield "Prompt"
    yield _indented(_prompt(generation.prompt))
    yield ""
    yield "Generated text"
    yield _indented(generation.text or "(none)")
    yield ""
    yield "This is a record of measurements. It is no evidence of compliance with any law or standard."
    yield ""


def _prompt(prompt: Prompt | None) -> str:
    if prompt is None:
        return "(the record does not say)"
    return prompt if isinstance(prompt, str) else "\n".join(f"{m.role}: {m.content}" for m in prompt)


def _indented(text: str) -> str:
    shown = "".join(f"⟨{run.text}⟩" if run.kind == "hidden" else run.text for run in runs(text))
    return "\n".join(f"  {line}" for line in shown.split("\n"))
