"""A language model as the judge of `cert.answers`: same or not, right or wrong, which is better."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Final, TypeAlias

from cert.answers.judge import AsyncJudge, Judgement, JudgeRequest
from cert.coordination.chat import ChatClient
from cert.coordination.evaluators.asking import Asking, Said, all_at_once, who
from cert.coordination.evaluators.forms import ChoiceForm, PointsForm
from cert.coordination.evaluators.instructions import load_instructions
from cert.coordination.evaluators.pairwise import PREFERENCE_FORM
from cert.coordination.evaluators.rubric import Criteria, Rubric

__all__ = ["BlockingJudge", "ChatJudge"]

_Verdict: TypeAlias = ChoiceForm[bool | None]
_VERDICTS: Final[Mapping[str, _Verdict]] = MappingProxyType(
    {
        "same_answer": ChoiceForm({"same": True, "different": False, "undecided": None}),
        "correct": ChoiceForm({"correct": True, "incorrect": False, "undecided": None}),
    }
)
_FIRST_IS_BETTER: Final = {"first": True, "second": False, "tie": None}


class ChatJudge:
    """An `AsyncJudge` that asks a language model, one request after the other at once.

    Args:
        client: the model.
        criteria: what to look at where a request names nothing; by default those of the package's rubric.
        draw: names these judgements among several of the same requests.
        **asking: as in `QualityEvaluator`.

    Raises:
        ConfigurationError: a number outside its range.
    """

    def __init__(
        self, client: ChatClient, *, criteria: Criteria | None = None, draw: str = "", **asking: Any
    ) -> None:
        self._client = client
        self._rubric = Rubric.of(None, criteria)
        self._draw = draw
        self._asking = Asking(**asking)

    @property
    def name(self) -> str:
        """The model, rubric and words by their hashes, and how it is asked."""
        words = load_instructions()
        return (
            f"{who(self._client)}; rubric={self._rubric.version}:{self._rubric.sha256[:12]}, "
            f"words={words.version}:{words.sha256[:12]}, {self._asking.identity}"
        )

    async def judge_async(self, requests: Sequence[JudgeRequest], /) -> Sequence[Judgement]:
        """Return one judgement a request, in their order; what failed for one request alone is missing.

        Raises:
            BudgetExceededError: there is no money left.
            ConfigurationError: the client cannot be asked like this at all.
            DependencyMissingError: the client needs a package.
        """
        return await all_at_once([self._one(request) for request in requests])

    async def _one(self, request: JudgeRequest) -> Judgement:
        names = ("answer",) if len(request.answers) == 1 else ("first answer", "second answer")
        sections = [("task", request.question)] if request.question.strip() else []
        sections += [("reference", request.reference)] if request.reference is not None else []
        sections += zip(names, request.answers, strict=True)
        if not all(answer.strip() for answer in request.answers):
            return Judgement(missing="empty_answer")
        if request.kind == "quality":
            return await self._quality(request, sections)
        if request.kind == "preference":
            return await self._preference(request, sections)
        form = _VERDICTS[request.kind]
        said = await self._asking.ask(self._client, request.kind, sections, form, draw=self._draw)
        return Judgement(verdict=said.value, rationale=said.rationale, missing=said.missing)

    async def _quality(self, request: JudgeRequest, sections: Sequence[tuple[str, str]]) -> Judgement:
        rubric = self._rubric_of(request)
        said: Said[tuple[int, ...]] = await self._asking.ask(
            self._client,
            "quality",
            sections,
            PointsForm(rubric),
            criteria=rubric.described(),
            draw=self._draw,
        )
        score = None if said.value is None else rubric.score(said.value)
        return Judgement(score=score, rationale=said.rationale, missing=said.missing)

    async def _preference(self, request: JudgeRequest, sections: Sequence[tuple[str, str]]) -> Judgement:
        criteria = self._rubric_of(request).in_order()
        said = await self._asking.ask(
            self._client, "preference", sections, PREFERENCE_FORM, criteria=criteria, draw=self._draw
        )
        verdict = None if said.value is None else _FIRST_IS_BETTER[said.value]
        return Judgement(verdict=verdict, rationale=said.rationale, missing=said.missing)

    def _rubric_of(self, request: JudgeRequest) -> Rubric:
        return self._rubric.looking_at(dict(request.criteria)) if request.criteria else self._rubric


class BlockingJudge:
    """The same for code that does not await, such as `HamiltonianMonitor.analyze_samples`.

    The judge runs on an event loop of its own, on a thread of its own, until `close`. Its client must not be
    used from another loop meanwhile.

    Args:
        judge: whom to ask.
    """

    def __init__(self, judge: AsyncJudge) -> None:
        self._judge = judge
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cert-judge", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The judge's."""
        return self._judge.name

    def judge(self, requests: Sequence[JudgeRequest], /) -> Sequence[Judgement]:
        """Return one judgement a request, in their order, as the judge does."""

        async def asked() -> Sequence[Judgement]:
            return await self._judge.judge_async(requests)

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()

    def close(self) -> None:
        """Stop the loop and its thread; what is being judged is given up."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(_given_up(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> BlockingJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _given_up() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
