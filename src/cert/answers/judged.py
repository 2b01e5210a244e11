"""Equivalence by a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cert.answers.equivalence import Pair, checked
from cert.answers.judge import AsyncJudge, Judge, Judgement, JudgeRequest

__all__ = ["AsyncJudgeEquivalence", "JudgeEquivalence"]


@dataclass(frozen=True, slots=True)
class JudgeEquivalence:
    """Two answers are the same if a judge says so.

    Attributes:
        judge: whom to ask.
        both_orders: ask about each pair in both orders; where the two verdicts differ it is undecided.
    """

    judge: Judge
    both_orders: bool = False

    @property
    def name(self) -> str:
        """The judge."""
        return _name(self.judge.name, self.both_orders)

    def same(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:
        """Return the verdict on each pair; a missing judgement is undecided."""
        return _verdicts(self.judge.judge(_requests(question, pairs, self.both_orders)), len(pairs), self)


@dataclass(frozen=True, slots=True)
class AsyncJudgeEquivalence:
    """The same with a judge that waits for a network.

    Attributes:
        judge, both_orders: as in `JudgeEquivalence`.
    """

    judge: AsyncJudge
    both_orders: bool = False

    @property
    def name(self) -> str:
        """The judge."""
        return _name(self.judge.name, self.both_orders)

    async def same_async(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:
        """Return the verdict on each pair; a missing judgement is undecided."""
        judgements = await self.judge.judge_async(_requests(question, pairs, self.both_orders))
        return _verdicts(judgements, len(pairs), self)


def _name(judge: str, both_orders: bool) -> str:
    return f"judge({judge}{', both orders' if both_orders else ''})"


def _requests(question: str, pairs: Sequence[Pair], both_orders: bool) -> list[JudgeRequest]:
    shown = [*pairs, *((b, a) for a, b in pairs)] if both_orders else pairs
    return [JudgeRequest("same_answer", question, pair) for pair in shown]


def _verdicts(
    judgements: Sequence[Judgement], n_pairs: int, asked: JudgeEquivalence | AsyncJudgeEquivalence
) -> list[bool | None]:
    expected = 2 * n_pairs if asked.both_orders else n_pairs
    verdicts = [judgement.verdict for judgement in checked(judgements, expected, asked.name)]
    if not asked.both_orders:
        return verdicts
    return [a if a == b else None for a, b in zip(verdicts[:n_pairs], verdicts[n_pairs:], strict=True)]
