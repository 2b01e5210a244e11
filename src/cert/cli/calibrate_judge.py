"""A chat model as the judge of stored answers; what it says is kept, so that nothing is paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cert.cli.console import stderr
from cert.core.errors import CertError, ConfigurationError, DependencyMissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cert.answers import AsyncJudge, Judgement, JudgeRequest
    from cert.backends.stored import StoredOptions
    from cert.cli.labelled_options import LabelOptions

__all__ = ["judged", "judgements_path"]


def judgements_path(data: Path) -> Path:
    """Return where the judgements of a file are kept."""
    return data.with_name(f"{data.name}.judged.jsonl")


def judged(how: LabelOptions, data: Path, key: str | None, options: StoredOptions) -> Path:
    """Have every answer judged that was not before, and return the file of the judgements.

    Raises:
        CertError: the judge cannot be opened, or cannot go on; what was judged is kept.
    """
    from rich.progress import Progress

    from cert.trajectory.calibration.label_file import LabelWriter
    from cert.trajectory.calibration.labelling import answers_to_label, drawn, judge_labels

    target = judgements_path(data)
    # By chance, so that what is judged before the money ends stands for all.
    answers = drawn(
        answers_to_label(data, reference=how.reference, key=key, options=options), sys.maxsize, seed=0
    )
    with contextlib.ExitStack() as stack:
        judge = _opened(how, stack)
        writer = stack.enter_context(LabelWriter(target, by=judge.name))
        progress = stack.enter_context(Progress(console=stderr(), transient=True))
        task = progress.add_task("judging", total=len(answers))
        missing = judge_labels(answers, judge, writer, advance=lambda count: progress.advance(task, count))
    if judge.failed is not None:
        raise judge.failed
    for reason, count in missing.items():
        stderr().print(f"{count} without a label, {reason}", markup=False, highlight=False)
    return target


def _opened(how: LabelOptions, stack: contextlib.ExitStack) -> _OnOneLoop:
    try:
        from cert.coordination.evaluators import ChatJudge
    except ImportError as error:
        raise DependencyMissingError(
            f"a judge needs more packages ({error.name})", hint="pip install 'cert-framework[coordination]'"
        ) from error
    from cert.cli.chat_models import ChatModels, Limits, parse_prices

    assert how.judge is not None
    models = ChatModels(Limits(None, _dollars(how.max_cost)), parse_prices(how.price))
    runner = stack.enter_context(asyncio.Runner())
    stack.callback(lambda: runner.run(models.aclose()))
    return _OnOneLoop(ChatJudge(models.open(how.judge, agents=True)), runner)


class _OnOneLoop:
    """A judge for code that does not await: its connections belong to one loop, which also closes them.

    Attributes:
        failed: why it cannot go on, such as without money. What was judged beside that is given out, since
            it is paid for; the next call raises it.
    """

    def __init__(self, judge: AsyncJudge, runner: asyncio.Runner) -> None:
        self._judge, self._runner = judge, runner
        self.failed: CertError | None = None

    @property
    def name(self) -> str:
        """The judge's."""
        return self._judge.name

    def judge(self, requests: Sequence[JudgeRequest], /) -> Sequence[Judgement]:
        """Return one judgement a request, in their order, as the judge does."""
        if self.failed is not None:
            raise self.failed
        said = self._runner.run(self._each(requests))
        self.failed = next((one for one in said if isinstance(one, CertError)), None)
        return [_judgement(one) for one in said]

    async def _each(self, requests: Sequence[JudgeRequest]) -> list[Sequence[Judgement] | BaseException]:
        asked = (self._judge.judge_async([request]) for request in requests)
        return await asyncio.gather(*asked, return_exceptions=True)


def _judgement(said: Sequence[Judgement] | BaseException) -> Judgement:
    if isinstance(said, CertError):
        from cert.answers import Judgement

        return Judgement(missing=said.code)
    if isinstance(said, BaseException):
        raise said
    return said[0]


def _dollars(text: str | None) -> Any:
    from decimal import Decimal, InvalidOperation

    try:
        if text is None or Decimal(text) > 0:
            return None if text is None else Decimal(text)
    except InvalidOperation:
        pass
    raise ConfigurationError(f"'{text}' is no number of dollars above 0")
