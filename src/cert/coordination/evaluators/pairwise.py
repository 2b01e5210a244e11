"""Which of two answers is better, asked in both orders: a judge that follows the order has no preference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from cert.coordination.chat import ChatClient, Usage
from cert.coordination.evaluators.asking import Asking, Said, all_at_once, joined_draw
from cert.coordination.evaluators.forms import ChoiceForm
from cert.coordination.evaluators.panel import Panel
from cert.coordination.evaluators.rubric import Criteria, Rubric
from cert.coordination.types import Task
from cert.core.errors import InputError

__all__ = ["PREFERENCE_FORM", "PairwiseEvaluator", "PairwiseJudge", "Preference", "Shown"]

Shown: TypeAlias = Literal["first", "second", "tie"]

_Verdict: TypeAlias = Said[Shown]

PREFERENCE_FORM: Final[ChoiceForm[Shown]] = ChoiceForm({"first": "first", "second": "second", "tie": "tie"})
_WORTH: Final[dict[str, float]] = {"first": 1.0, "second": 0.0, "tie": 0.5}
_TURNED: Final[dict[str | None, Shown | None]] = {
    "first": "second",
    "second": "first",
    "tie": "tie",
    None: None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Which of two answers judges prefer.

    Attributes:
        share: of the comparisons that the first answer wins, ties counted as one half; ``None`` is not
            measured.
        missing: why it is not, else ``None``.
        evaluator: who says so, with all that changes the verdicts.
        orders: of each comparison, judge by judge, which *answer* was preferred when the first was shown
            first, and when the second was; ``None`` where a verdict is missing.
        n_judges: whose comparisons these are, each with as many repeats.
        reasons: why each of the missing verdicts is, in the same form.
        rationale: of a judge, untrusted.
        usage, cost_micro_dollars: of the judging.
        from_cache: all of it was there already.
    """

    share: float | None
    missing: str | None = None
    evaluator: str
    orders: tuple[tuple[Shown | None, Shown | None], ...] = ()
    n_judges: int = 1
    reasons: tuple[tuple[str | None, str | None], ...] = ()
    rationale: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_micro_dollars: int = 0
    from_cache: bool = False

    def __post_init__(self) -> None:
        if self.share is not None and not 0.0 <= self.share <= 1.0:
            raise InputError(f"a share is in [0, 1], not {self.share}")
        if (self.share is None) == (self.missing is None):
            raise InputError("a preference has a share or says why it is missing")

    @property
    def preferred(self) -> Shown | None:
        """The answer that wins more than half; ``None`` is not measured."""
        if self.share is None:
            return None
        return "tie" if self.share == 0.5 else "first" if self.share > 0.5 else "second"

    @property
    def compared(self) -> int:
        """Comparisons with a verdict in both orders."""
        return sum(None not in pair for pair in self.orders)

    @property
    def flips(self) -> int:
        """Comparisons whose two verdicts differ; they count as ties."""
        return sum(None not in pair and pair[0] != pair[1] for pair in self.orders)


class PairwiseJudge(Protocol):
    """Says which of two answers is better."""

    @property
    def identity(self) -> str:
        """Who says so, with all that changes the verdicts."""
        ...

    async def compare(self, task: Task, first: str, second: str, *, draw: str = "") -> Preference:
        """Compare two answers to a task."""
        ...


class PairwiseEvaluator:
    """Compares two answers by asking language models in both orders.

    A comparison counts only with a verdict in both orders; where these differ it is a tie, and counted as a
    flip (Zheng et al., arXiv 2306.05685). Preferences are more sensitive than scores, and say nothing about
    how good the better answer is.

    Args:
        client: the judge.
        criteria: what to look at; by default those of the package's rubric. Their weights are told in order
            of importance only.
        repeats: comparisons of each judge, each a draw of its own and two judgements.
        panel: further judges.
        with_references: show the task's reference answers to the judges.
        least_share: of the comparisons, this share has to be there.
        **asking: as in `QualityEvaluator`.

    Raises:
        ConfigurationError: a number outside its range.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        criteria: Criteria | None = None,
        repeats: int = 1,
        panel: Sequence[ChatClient] = (),
        with_references: bool = True,
        least_share: float = 0.5,
        **asking: Any,
    ) -> None:
        self.rubric = Rubric.of(None, criteria)
        self._panel = Panel(
            judges=(client, *panel),
            rubric=self.rubric,
            repeats=repeats,
            with_references=with_references,
            least_share=least_share,
            asking=Asking(**asking),
        )

    @property
    def identity(self) -> str:
        """The judges, criteria and words by their hashes, and how they are asked."""
        return f"pairwise({self._panel.identity})"

    async def compare(self, task: Task | str, first: str, second: str, *, draw: str = "") -> Preference:
        """Compare two answers; all judgements are asked for at once.

        Raises:
            BudgetExceededError: there is no money left for a judgement.
            ConfigurationError: a client cannot be asked like this at all.
            DependencyMissingError: a client needs a package.
        """
        task = Task.of(task)

        async def both(client: ChatClient, draw: str) -> list[_Verdict]:
            shown = (("forth", first, second), ("back", second, first))
            return await all_at_once(
                [self._judge(client, task, pair, joined_draw(draw, order)) for order, *pair in shown]
            )

        return self._preference(await self._panel.ask_all(both, draw))

    async def _judge(self, client: ChatClient, task: Task, pair: Sequence[str], draw: str) -> _Verdict:
        sections = self._panel.material(task, [("first answer", pair[0]), ("second answer", pair[1])])
        if isinstance(sections, str):
            return Said(value=None, missing=sections)
        criteria = self.rubric.in_order()
        return await self._panel.asking.ask(
            client, "preference", sections, PREFERENCE_FORM, criteria=criteria, draw=draw
        )

    def _preference(self, comparisons: Sequence[Sequence[_Verdict]]) -> Preference:
        said = [one for comparison in comparisons for one in comparison]
        orders = tuple((forth.value, _TURNED[back.value]) for forth, back in comparisons)
        reasons = tuple((forth.missing, back.missing) for forth, back in comparisons)
        missing = self._panel.why_missing([forth or back for forth, back in reasons])
        return Preference(
            share=self._panel.mean([_worth(pair) for pair in orders]) if missing is None else None,
            missing=missing,
            evaluator=self.identity,
            orders=orders,
            n_judges=len(self._panel.judges),
            reasons=reasons,
            rationale=next((one.rationale for one in said if one.value is not None), None),
            usage=sum((one.usage for one in said), Usage()),
            cost_micro_dollars=sum(one.cost_micro_dollars for one in said),
            from_cache=all(one.from_cache for one in said),
        )


def _worth(pair: tuple[Shown | None, Shown | None]) -> float | None:
    if pair[0] is None or pair[1] is None:
        return None
    return _WORTH[pair[0]] if pair[0] == pair[1] else 0.5
