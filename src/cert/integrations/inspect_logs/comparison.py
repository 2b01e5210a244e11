"""The paired comparison of two logs: the verdict, what it rests on, and what limits it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cert._version import __version__
from cert.coordination.statistics.inference import FEW_CLUSTERS, FEW_DISCORDANT
from cert.coordination.statistics.pairs import task_means
from cert.coordination.statistics.verdict import Decision, Rules, decide
from cert.coordination.types import SCHEMA_VERSION
from cert.integrations.inspect_logs.pairing import Arm, pair_logs
from cert.integrations.inspect_logs.records import InspectLog
from cert.integrations.inspect_logs.spending import Spending, spending_of
from cert.reporting.data import json_ready

__all__ = ["ComparedLog", "LogComparison", "compare_logs"]

_CLOSE: Final = (0.8, 1.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedLog:
    """One of the two logs.

    Attributes:
        path, status, task, task_version, task_args, dataset, solver, model, created, revision,
            inspect_version: what it is, as it says itself; untrusted text.
        epochs: runs of each sample.
        quality: mean score over the samples that have one, in [0, 1]; ``None`` where none has.
        missing: scores that are missing, by reason.
        only_here: samples that the other log was not to run, and which are not compared.
        spending: tokens and money.
    """

    path: str
    status: str
    task: str
    task_version: int | str
    task_args: Mapping[str, Any]
    dataset: str | None
    solver: str | None
    model: str
    created: str
    revision: str | None
    inspect_version: str | None
    epochs: int
    quality: float | None
    missing: Mapping[str, int]
    only_here: int
    spending: Spending


@dataclass(frozen=True, slots=True, kw_only=True)
class LogComparison:
    """A candidate against a baseline, on the samples that both were to run.

    Attributes:
        scorer, key: which scores.
        samples: T that are compared; those without a score in one of the logs included.
        baseline, candidate: the logs.
        decision: of candidate − baseline; its tasks are samples, its replicates epochs.
        rules: margin and levels of the verdict.
        budgets: in a sentence, whether both spent alike: the verdict is of scores alone.
        limits: in sentences, what else the numbers do not say, the gravest first.
    """

    scorer: str
    key: str | None
    samples: int
    baseline: ComparedLog
    candidate: ComparedLog
    decision: Decision
    rules: Rules
    budgets: str
    limits: tuple[str, ...]

    @property
    def token_ratio(self) -> float | None:
        """Tokens of a run of the candidate, per token of one of the baseline; ``None`` is not measured."""
        return _ratio(self.candidate.spending.tokens_a_run, self.baseline.spending.tokens_a_run)

    @property
    def output_token_ratio(self) -> float | None:
        """The same for tokens that were generated."""
        return _ratio(*(_written(log.spending) for log in (self.candidate, self.baseline)))

    @property
    def cost_ratio(self) -> float | None:
        """The same for money."""
        return _ratio(*(_paid(log.spending) for log in (self.candidate, self.baseline)))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data: dollars as text, ``None`` for what is not measured, infinities by name."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "inspect_log_comparison",
            "cert_version": __version__,
            "verdict": self.decision.verdict,
            "token_ratio": self.token_ratio,
            "output_token_ratio": self.output_token_ratio,
            "cost_ratio": self.cost_ratio,
            **json_ready(self),
        }


def compare_logs(
    baseline: InspectLog,
    candidate: InspectLog,
    *,
    scorer: str | None = None,
    key: str | None = None,
    rules: Rules | None = None,
) -> LogComparison:
    """Compare two logs of one task, sample by sample.

    Args:
        baseline: the log that the other one is held against; see `read_log`.
        candidate: the log in question.
        scorer: name of the score; may be left out where the logs share one alone.
        key: of the value, for a scorer whose values are objects.
        rules: margin and levels of the verdict.

    Raises:
        InputError: they cannot be compared; the message says why.
    """
    rules = rules or Rules()
    paired = pair_logs(baseline, candidate, scorer, key)
    decision = decide(paired.candidate.scores, paired.baseline.scores, rules=rules)
    samples = frozenset(paired.samples)
    first, second = (
        _compared(arm, spending_of(arm.log, samples)) for arm in (paired.baseline, paired.candidate)
    )
    return LogComparison(
        scorer=paired.scorer,
        key=paired.key,
        samples=len(paired.samples),
        baseline=first,
        candidate=second,
        decision=decision,
        rules=rules,
        budgets=_budgets(first.spending, second.spending),
        limits=tuple(_limits(paired.baseline, paired.candidate, decision)),
    )


def _compared(arm: Arm, spending: Spending) -> ComparedLog:
    log = arm.log
    means = task_means(arm.scores)
    measured = means[means >= 0.0]
    return ComparedLog(
        path=log.path,
        status=log.status,
        task=log.task,
        task_version=log.task_version,
        task_args=log.task_args,
        dataset=log.dataset,
        solver=log.solver,
        model=log.model,
        created=log.created,
        revision=log.revision,
        inspect_version=log.version,
        epochs=log.epochs,
        quality=float(measured.mean()) if len(measured) else None,
        missing=arm.missing,
        only_here=arm.only_here,
        spending=spending,
    )


def _budgets(baseline: Spending, candidate: Spending) -> str:
    ratio = _ratio(candidate.tokens_a_run, baseline.tokens_a_run)
    if ratio is None:
        why = "; ".join(
            f"{name}: {one.usage_missing}"
            for name, one in (("baseline", baseline), ("candidate", candidate))
            if one.usage_missing
        )
        return f"Not budget-matched: what the runs spent is not known ({why or 'no tokens'})."
    spent = f"a run of the candidate used {ratio:.2f} times the tokens of one of the baseline"
    if _CLOSE[0] <= ratio <= _CLOSE[1]:
        return f"The budgets are close: {spent}."
    return f"Not budget-matched: {spent}. The verdict is about scores alone."


def _limits(baseline: Arm, candidate: Arm, decision: Decision) -> Iterator[str]:
    for name, arm in (("baseline", baseline), ("candidate", candidate)):
        if arm.log.status != "success":
            yield f"The {name}'s run ended as '{arm.log.status}': what it did not get to is missing."
        if arm.only_here:
            yield f"{arm.only_here:,} samples of the {name} are not in the other log, and not compared."
        if arm.log.epochs > 1 and set(arm.log.reducers) - {"mean"}:
            yield (
                f"The {name}'s log reduces epochs by {', '.join(arm.log.reducers)}; here a sample's score is "
                "the mean of its epochs."
            )
    if baseline.log.roles.get("grader") != candidate.log.roles.get("grader"):
        yield "The role 'grader' is another model in each log: a scorer that asks it is two instruments."
    if None in (baseline.log.scorers, candidate.log.scorers):
        yield "A log does not say how its scorer was set: that both were set alike is not checked."
    found = decision.difference
    if 2 <= found.sources < FEW_CLUSTERS or found.discordant < FEW_DISCORDANT:
        yield (
            f"{found.tasks:,} samples, on {found.discordant:,} of which the logs differ, are few: the "
            "interval is a wide one on purpose."
        )
    yield "Samples count as independent. Where several are about one document or scenario, it is too narrow."
    yield "A verdict is about samples like these under this scorer, whose own errors are in both logs."


def _written(spending: Spending) -> float | None:
    return None if spending.usage is None else spending.usage.output_tokens / spending.runs


def _paid(spending: Spending) -> float | None:
    return None if spending.cost is None else float(spending.cost) / spending.runs


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
