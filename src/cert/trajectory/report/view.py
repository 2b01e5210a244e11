"""What the report shows of one analysis, worked out here so that the template only places it."""

from __future__ import annotations

import math
from typing import Any

from cert._version import __version__
from cert.backends.base import Prompt, Sampling
from cert.core.visible import label
from cert.reporting.numbers import NOT_MEASURED, interval, number
from cert.trajectory.gate import Check, GateDecision, Verdict
from cert.trajectory.report.charts import bounded, charts, rounded
from cert.trajectory.report.signals import signal_groups
from cert.trajectory.types import TrajectoryAnalysis

__all__ = ["SURPRISAL_CLASSES", "legend", "section"]

SURPRISAL_CLASSES = 16
# Class k begins at k² / 32 nats: narrow where most tokens are, and the last one at 7 nats, 1 in 1,000.
_CLASSES_SQUARED_PER_NAT = 32
_ALTERNATIVES = 8
_SHORT = 280  # characters that fit beside the prompt in large type

_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "pass": ("Pass", "Every rule held."),
    "fail": ("Fail", "At least one rule was exceeded."),
    "undecided": ("Undecided", "Only bounds are known, and a threshold lies between them."),
    "not_measured": ("Not measured", "A rule needs a number that this generation does not give."),
}
_OUTCOMES: dict[Verdict, str] = {
    "pass": "within",
    "fail": "above",
    "undecided": "undecided",
    "not_measured": NOT_MEASURED,
}
_RULES = {
    ("perplexity", "mean"): "Mean token perplexity",
    ("entropy", "max"): "Largest entropy, nats",
    ("top_k_entropy", "max"): "Largest top-K entropy, nats",
    ("cumulative_surprise", "final"): "Cumulative surprise, nats",
}
_ENDINGS = {
    "stop": "the model ended the answer",
    "length": "cut at the limit of new tokens",
    "context_window": "the context window was full",
    "content_filter": "the server filtered the answer",
    "refusal": "the model refused to answer",
    "tool_calls": "the model called a tool",
    "timeout": "the time was over",
    "cancelled": "it was cancelled",
    "early_stop": "it was stopped early",
    "given": "the text was given and scored",
    "unknown": "the record does not say",
}
_UNKNOWN = "not stated"


def section(analysis: TrajectoryAnalysis, position: int) -> dict[str, Any]:
    """Return everything that the template and the script need of one analysis."""
    g, decision = analysis.generation, analysis.decision
    word, meaning = _VERDICTS[decision.verdict]
    measured = not math.isnan(analysis.signals.mean_surprisal)
    return {
        "id": f"g{position}",
        "verdict": decision.verdict,
        "verdict_word": word,
        "verdict_meaning": meaning,
        "reasons": decision.reasons,
        "thresholds": _thresholds(decision),
        "checks": [_check(check, g.tokens) for check in decision.checks],
        "prompt": _prompt(g.prompt),
        "text": g.text,
        "n_tokens": analysis.generation_steps,
        "measured": measured,
        "pieces": _pieces(analysis),
        "size": "short" if len(g.text) <= _SHORT else "long",
        "flagged": any(check.outcome == "fail" and check.token is not None for check in decision.checks),
        "stop": _stop(analysis),
        "ending": _ending(analysis),
        "charts": charts(analysis),
        "signal_groups": signal_groups(analysis.signals, analysis.config),
        "facts": _facts(analysis),
        "created_at": analysis.created_at,
        "model": g.model.name,
        "rows": _rows(analysis),
        "data": _data(analysis),
    }


def legend() -> list[tuple[str, str]]:
    """Surprisal and probability where each second colour begins."""
    edges = (k * k / _CLASSES_SQUARED_PER_NAT for k in range(0, SURPRISAL_CLASSES, 2))
    return [(f"{edge:.2g}", f"{math.exp(-edge):.2g}") for edge in edges]


def _thresholds(decision: GateDecision) -> str:
    by = decision.certificate
    if by is None:
        return f"Profile {decision.profile}, uncalibrated: no error rate belongs to these thresholds."
    signed = "not signed" if by.signed_by is None else f"signed with the key {by.signed_by[:16]}…"
    notes = "".join(f" {note[0].upper()}{note[1:]}." for note in by.notes)
    standing = "Calibrated" if decision.calibrated else "Not calibrated any more: the promise is void"
    return f"{standing}. Certificate {by.id}, {signed}. Promise: {by.promise}.{notes}"


def _check(check: Check, tokens: tuple[str, ...]) -> dict[str, Any]:
    return {
        "rule": _rule(check),
        "value": interval(check.lower, check.upper),
        "threshold": number(check.threshold),
        "outcome": check.outcome,
        "outcome_word": _OUTCOMES[check.outcome],
        "token": check.token,
        "token_text": None if check.token is None else label(tokens[check.token], 16),
    }


def _rule(check: Check) -> str:
    if check.statistic == "score":
        return f"Score {check.signal}"
    return _RULES.get((check.signal, check.statistic), f"{check.statistic} {check.signal}")


def _pieces(analysis: TrajectoryAnalysis) -> list[dict[str, Any]]:
    """The generated text cut into tokens and what no token covers, in order, each character once.

    Tokens that share a character all have its span; the first shows it and the others get a mark.
    """
    g, done = analysis.generation, 0
    pieces: list[dict[str, Any]] = []
    flagged = {c.token for c in analysis.decision.checks if c.outcome == "fail"}
    linked = {c.token for c in analysis.decision.checks}
    columns = zip(g.offsets.tolist(), analysis.step.surprisal.tolist(), strict=True)
    for index, ((start, end), surprisal) in enumerate(columns):
        if start > done:
            pieces.append({"token": None, "text": g.text[done:start]})
        text = g.text[max(start, done) : end]
        pieces.append(
            {
                "token": index,
                "text": text,
                "heat": _heat(surprisal),
                "empty": not text,
                "flagged": index in flagged,
                "linked": index in linked,
            }
        )
        done = max(done, end)
    if done < len(g.text):
        pieces.append({"token": None, "text": g.text[done:]})
    return pieces


def _heat(surprisal: float) -> str:
    if math.isnan(surprisal):
        return "sx"
    return f"s{min(int(math.sqrt(_CLASSES_SQUARED_PER_NAT * max(surprisal, 0.0))), SURPRISAL_CLASSES - 1)}"


def _stop(analysis: TrajectoryAnalysis) -> dict[str, Any] | None:
    step = analysis.generation.stop_step
    if step is None:
        return None
    token_id = int(step.token_ids[0])
    return {
        "id": token_id,
        "text": label(analysis.generation.vocabulary.text(token_id)),
        "p": math.exp(step.logprob[0]),
    }


def _prompt(prompt: Prompt | None) -> list[tuple[str, str]]:
    if prompt is None:
        return [("", "(the record does not say)")]
    return [("", prompt)] if isinstance(prompt, str) else [(m.role, m.content) for m in prompt]


def _sampling(sampling: Sampling | None) -> tuple[str, str]:
    """How tokens were chosen, and the seed."""
    if sampling is None:
        return _UNKNOWN, _UNKNOWN
    if sampling.greedy:
        return "greedy", "not used"
    limits = [("top-p", sampling.top_p), ("top-k", sampling.top_k)]
    parts = [f"temperature {sampling.temperature:g}"]
    described = ", ".join(parts + [f"{name} {value:g}" for name, value in limits if value is not None])
    return described, _UNKNOWN if sampling.seed is None else str(sampling.seed)


def _facts(analysis: TrajectoryAnalysis) -> list[tuple[str, str]]:
    g = analysis.generation
    unknown = _UNKNOWN
    sampling, seed = _sampling(g.sampling)
    vocabulary = unknown if g.model.vocab_size is None else f"{g.model.vocab_size:,} tokens"
    return [
        ("Model", g.model.name),
        ("Revision", g.model.revision or unknown),
        ("Backend", g.model.backend),
        ("Device", g.model.device or unknown),
        ("Data type", g.model.dtype or unknown),
        ("Vocabulary", vocabulary),
        ("Log-probabilities", f"{g.logprobs_mode}, {g.steps.top_k} candidates a step"),
        ("Sampling", sampling),
        ("Seed", seed),
        ("Prompt", unknown if g.prompt_tokens is None else f"{g.prompt_tokens:,} tokens"),
        ("Generated", f"{analysis.generation_steps:,} tokens"),
        ("Ended", _ending(analysis)),
        ("Duration", unknown if g.duration_s is None else f"{g.duration_s:.3g} s"),
        ("CERT", __version__),
        ("Created", analysis.created_at),
    ]


def _ending(analysis: TrajectoryAnalysis) -> str:
    stop = analysis.early_stop
    if stop is None:
        return _ENDINGS[analysis.generation.finish_reason]
    return f"stopped at the gate's alarm (token {stop.alarm_at}): a part of the answer"


def _rows(analysis: TrajectoryAnalysis) -> list[dict[str, Any]]:
    """The table of tokens, for readers without the script and for a spreadsheet."""
    entropy = zip(analysis.step.entropy_lower.tolist(), analysis.step.entropy_upper.tolist(), strict=True)
    columns = zip(analysis.metrics, analysis.generation.steps.token_ids.tolist(), entropy, strict=True)
    return [
        {
            "token": label(_token_text(analysis, m.step, m.token)),
            "id": str(token_id),
            "p": m.probability,
            "surprisal": number(m.surprisal),
            "entropy": interval(*bounds),
            "margin": number(m.logit_gap),
            "cumulative": number(m.cumulative_surprise),
            "energy": number(m.energy),
        }
        for m, token_id, bounds in columns
    ]


def _token_text(analysis: TrajectoryAnalysis, index: int, text: str) -> str:
    g = analysis.generation
    return text or g.vocabulary.text(int(g.steps.token_ids[index]))


def _data(analysis: TrajectoryAnalysis) -> dict[str, Any]:
    """The columns that the script draws; ``None`` is not measured."""
    g, step = analysis.generation, analysis.step
    shown = g.steps.top_ids[:, :_ALTERNATIVES]
    return {
        "labels": [label(_token_text(analysis, i, text)) for i, text in enumerate(g.tokens)],
        "ids": g.steps.token_ids.tolist(),
        "surprisal": rounded(step.surprisal),
        "entropy": rounded(step.entropy_lower),
        "entropy_upper": rounded(step.entropy_upper) if bounded(step) else None,
        "margin": rounded(step.margin),
        "cumulative": rounded(analysis.running.cumulative_surprise),
        "energy": rounded(analysis.energy),
        "top": shown.tolist(),
        "top_logprob": [rounded(row[:_ALTERNATIVES]) for row in g.steps.top_logprobs],
        "rank": [_rank(ids, chosen) for ids, chosen in _chosen(analysis)],
        "names": {str(i): label(g.vocabulary.text(i)) for i in sorted(set(shown.ravel().tolist())) if i >= 0},
        "top_k": g.steps.top_k,
        "charts": charts(analysis),
    }


def _chosen(analysis: TrajectoryAnalysis) -> list[tuple[list[int], int]]:
    steps = analysis.generation.steps
    return list(zip(steps.top_ids.tolist(), steps.token_ids.tolist(), strict=True))


def _rank(ids: list[int], chosen: int) -> int | None:
    return ids.index(chosen) + 1 if chosen in ids else None
