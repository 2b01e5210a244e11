"""How good an answer is, by one language model or several that judge it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from cert.coordination.chat import ChatClient, Usage
from cert.coordination.evaluators.asking import Asking, Said
from cert.coordination.evaluators.forms import PointsForm
from cert.coordination.evaluators.panel import Panel
from cert.coordination.evaluators.rubric import Criteria, Rubric
from cert.coordination.types import Evaluation, Task

__all__ = ["QualityEvaluator"]

_Points = Said[tuple[int, ...]]


class QualityEvaluator:
    """Scores answers from 0 to 1 by asking language models (LLM as judge).

    Each judge gives whole points for each criterion of the rubric; a judgement is their weighted mean. The
    score is the mean over the judges of the mean of their repeats. A judgement that failed, was refused or
    cut off, or is not exactly of the form that was asked for is missing: never a number. It is counted, and
    below the least share of judgements there is no score.

    Args:
        client: the judge.
        criteria: what to look at: names with weights, names, or `Criterion`; by default those of the rubric.
        rubric: scale and criteria, or the path of a file of them; by default the package's own.
        repeats: judgements of each judge, each a draw of its own.
        panel: further judges. A model tends to prefer answers of its own family.
        with_references: show the task's reference answers to the judges.
        least_share: of the judgements that are asked for, this share has to be there for a score.
        **asking: how the judges are asked: ``temperature``, ``max_tokens``, ``seed``, ``timeout``, ``typed``,
            ``account``; see `Asking`.

    Raises:
        ConfigurationError: a number outside its range, or a rubric that cannot be read.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        criteria: Criteria | None = None,
        rubric: Rubric | str | Path | None = None,
        repeats: int = 1,
        panel: Sequence[ChatClient] = (),
        with_references: bool = True,
        least_share: float = 0.5,
        **asking: Any,
    ) -> None:
        self.rubric = Rubric.of(rubric, criteria)
        self._panel = Panel(
            judges=(client, *panel),
            rubric=self.rubric,
            repeats=repeats,
            with_references=with_references,
            least_share=least_share,
            asking=Asking(**asking),
        )
        self._form = PointsForm(self.rubric)

    @property
    def identity(self) -> str:
        """The judges, rubric and words by their hashes, and how they are asked."""
        return f"quality({self._panel.identity})"

    def through(self, wrap: Callable[[ChatClient], ChatClient]) -> Self:
        """Return the same with every judge asked through another client: a store, or one that only counts.

        Args:
            wrap: takes a judge's client and returns the one to ask.
        """
        twin = copy.copy(self)
        judges = tuple(wrap(judge) for judge in self._panel.judges)
        twin._panel = replace(self._panel, judges=judges)
        return twin

    async def evaluate(self, task: Task | str, answer: str, *, draw: str = "") -> Evaluation:
        """Evaluate one answer; all judgements are asked for at once.

        Args:
            task: that was set.
            answer: untrusted text. An empty one, and material of more than 100,000 characters, is not judged.
            draw: names one evaluation among several of the same answer.

        Raises:
            BudgetExceededError: there is no money left for a judgement.
            ConfigurationError: a client cannot be asked like this at all.
            DependencyMissingError: a client needs a package.
        """
        sections = self._panel.material(Task.of(task), [("answer", answer)])

        async def judge(client: ChatClient, draw: str) -> _Points:
            if isinstance(sections, str):
                return Said(value=None, missing=sections)
            criteria = self.rubric.described()
            return await self._panel.asking.ask(
                client, "quality", sections, self._form, criteria=criteria, draw=draw
            )

        return self._evaluation(await self._panel.ask_all(judge, draw))

    def _evaluation(self, said: Sequence[_Points]) -> Evaluation:
        scores = tuple(None if one.value is None else self.rubric.score(one.value) for one in said)
        reasons = tuple(one.missing for one in said)
        missing = self._panel.why_missing(reasons)
        return Evaluation(
            score=self._panel.mean(scores) if missing is None else None,
            missing=missing,
            evaluator=self.identity,
            scores=scores,
            n_judges=len(self._panel.judges),
            reasons=reasons,
            criteria=self._criteria(said) if missing is None else {},
            rationale=next((one.rationale for one in said if one.value is not None), None),
            usage=sum((one.usage for one in said), Usage()),
            cost_micro_dollars=sum(one.cost_micro_dollars for one in said),
            from_cache=all(one.from_cache for one in said),
        )

    def _criteria(self, said: Sequence[_Points]) -> dict[str, float]:
        shares = [
            [n / self.rubric.most for n in one.value] if one.value is not None else None for one in said
        ]
        return {
            criterion.name: self._panel.mean([None if given is None else given[i] for given in shares])
            for i, criterion in enumerate(self.rubric.criteria)
        }
