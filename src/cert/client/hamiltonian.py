"""The clients of the Hamiltonian service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from cert.client.calls import Call, Prompt, prompted, read_answer, read_problem
from cert.client.errors import ConnectionFailedError, ProtocolError
from cert.client.transport import AsyncCarrier, Carrier
from cert.client.types import (
    Alarm,
    Analysis,
    AnalysisPage,
    AnalysisSummary,
    BatchAnswer,
    Calibration,
    CalibrationList,
    Finished,
    StreamEvent,
    Token,
)

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncHamiltonianClient", "HamiltonianClient"]

Detail: TypeAlias = Literal["summary", "tokens", "full"]


class HamiltonianClient(Carrier):
    """Asks a Hamiltonian service, and blocks meanwhile.

    Options of generating, for `analyze`, `analyze_batch` and `stream`: ``model``, ``max_new_tokens``,
    ``temperature``, ``top_p``, ``sampling_top_k``, ``seed``, ``timeout_s``, ``group``, ``early_stop``.

    Example:
        ``with HamiltonianClient("http://localhost:8000") as client: client.analyze("…").verdict``
    """

    def analyze(self, prompt: Prompt, *, detail: Detail = "summary", **options: Any) -> Analysis:
        """Generate from a prompt, or the messages of a chat, and analyse the generation.

        Raises:
            ClientError: it could not be asked, or the service says no.
        """
        return self.call(_analyze(prompt, detail, options))

    def analyze_batch(
        self, prompts: Sequence[str], *, detail: Detail = "summary", **options: Any
    ) -> BatchAnswer:
        """Analyse many prompts; each has an outcome of its own."""
        return self.call(_batch(prompts, detail, options))

    def score(
        self, prompt: Prompt, completion: str | None = None, *, detail: Detail = "summary", **options: Any
    ) -> Analysis:
        """Read a text that is there already, as if the model had written it."""
        return self.call(_score(prompt, completion, detail, options))

    def stream(self, prompt: Prompt, *, detail: Detail = "summary", **options: Any) -> Iterator[StreamEvent]:
        """Yield tokens as they come, the alarm if there is one, and at last the analysis of the whole.

        Leaving early (``close()``) ends the generation.
        """
        ended = False
        for event in self.events(_stream(prompt, detail, options)):
            read = _event(event)
            ended = isinstance(read, Finished)
            yield read
        _require_end(ended)

    def analyses(self, *, limit: int = 50) -> Iterator[AnalysisSummary]:
        """Yield recent analyses, the latest first; pages are asked for as they are needed."""
        cursor: str | None = None
        while True:
            page = self.call(_page(limit, cursor))
            yield from page.items
            if (cursor := page.next) is None:
                return

    def analysis(self, analysis_id: str, *, detail: Detail = "full") -> Analysis:
        """Return one analysis by its id."""
        return self.call(_one(analysis_id, detail))

    def report(self, analysis_id: str) -> bytes:
        """Return the report of an analysis: a page of HTML that loads nothing."""
        return self.call(_report(analysis_id))

    def label(self, analysis_id: str, correct: bool) -> Analysis:
        """Say whether an answer turned out right; labels can refute the promise of a gate."""
        return self.call(_label(analysis_id, correct))

    def calibrations(self) -> list[Calibration]:
        """Return the certificates in force."""
        return self.call(_calibrations()).items


class AsyncHamiltonianClient(AsyncCarrier):
    """The same for tasks; see `HamiltonianClient`."""

    async def analyze(self, prompt: Prompt, *, detail: Detail = "summary", **options: Any) -> Analysis:
        """Do what `HamiltonianClient.analyze` does."""
        return await self.call(_analyze(prompt, detail, options))

    async def analyze_batch(
        self, prompts: Sequence[str], *, detail: Detail = "summary", **options: Any
    ) -> BatchAnswer:
        """Do what `HamiltonianClient.analyze_batch` does."""
        return await self.call(_batch(prompts, detail, options))

    async def score(
        self, prompt: Prompt, completion: str | None = None, *, detail: Detail = "summary", **options: Any
    ) -> Analysis:
        """Do what `HamiltonianClient.score` does."""
        return await self.call(_score(prompt, completion, detail, options))

    async def stream(
        self, prompt: Prompt, *, detail: Detail = "summary", **options: Any
    ) -> AsyncIterator[StreamEvent]:
        """Yield what `HamiltonianClient.stream` yields; ``aclose()`` ends the generation."""
        ended = False
        async with contextlib.aclosing(self.events(_stream(prompt, detail, options))) as events:  # type: ignore[type-var]  # a generator
            async for event in events:
                read = _event(event)
                ended = isinstance(read, Finished)
                yield read
        _require_end(ended)

    async def analyses(self, *, limit: int = 50) -> AsyncIterator[AnalysisSummary]:
        """Yield what `HamiltonianClient.analyses` yields."""
        cursor: str | None = None
        while True:
            page = await self.call(_page(limit, cursor))
            for item in page.items:
                yield item
            if (cursor := page.next) is None:
                return

    async def analysis(self, analysis_id: str, *, detail: Detail = "full") -> Analysis:
        """Do what `HamiltonianClient.analysis` does."""
        return await self.call(_one(analysis_id, detail))

    async def report(self, analysis_id: str) -> bytes:
        """Do what `HamiltonianClient.report` does."""
        return await self.call(_report(analysis_id))

    async def label(self, analysis_id: str, correct: bool) -> Analysis:
        """Do what `HamiltonianClient.label` does."""
        return await self.call(_label(analysis_id, correct))

    async def calibrations(self) -> list[Calibration]:
        """Do what `HamiltonianClient.calibrations` does."""
        return (await self.call(_calibrations())).items


def _analyze(prompt: Prompt, detail: str, options: dict[str, Any]) -> Call[Analysis]:
    return Call("POST", "/v1/analyze", Analysis, prompted(prompt, detail=detail, **options))


def _batch(prompts: Sequence[str], detail: str, options: dict[str, Any]) -> Call[BatchAnswer]:
    given = {name: value for name, value in options.items() if value is not None}
    return Call(
        "POST", "/v1/analyze/batch", BatchAnswer, {"prompts": list(prompts), "detail": detail} | given
    )


def _stream(prompt: Prompt, detail: str, options: dict[str, Any]) -> Call[Any]:
    return Call("POST", "/v1/analyze/stream", bytes, prompted(prompt, detail=detail, **options))


def _score(prompt: Prompt, completion: str | None, detail: str, options: dict[str, Any]) -> Call[Analysis]:
    body = prompted(prompt, completion=completion, detail=detail, **options)
    return Call("POST", "/v1/score", Analysis, body)


def _page(limit: int, cursor: str | None) -> Call[AnalysisPage]:
    return Call("GET", "/v1/analyses", AnalysisPage, query={"limit": limit, "cursor": cursor})


def _one(analysis_id: str, detail: str) -> Call[Analysis]:
    return Call("GET", f"/v1/analyses/{_part(analysis_id)}", Analysis, query={"detail": detail})


def _report(analysis_id: str) -> Call[bytes]:
    return Call("GET", f"/v1/analyses/{_part(analysis_id)}/report", bytes, headers={"Accept": "text/html"})


def _label(analysis_id: str, correct: bool) -> Call[Analysis]:
    body = {"correct": correct}
    return Call("POST", f"/v1/analyses/{_part(analysis_id)}/label", Analysis, body, repeatable=False)


def _calibrations() -> Call[CalibrationList]:
    return Call("GET", "/v1/calibrations", CalibrationList)


def _part(identifier: str) -> str:
    from urllib.parse import quote

    return quote(identifier, safe="")


def _event(event: httpx2.ServerSentEvent) -> StreamEvent:
    data = event.data.encode()
    if event.event == "token":
        return read_answer(data, Token)
    if event.event == "alarm":
        return read_answer(data, Alarm)
    if event.event == "analysis":
        return Finished(read_answer(data, Analysis))
    if event.event == "error":
        raise read_problem(int(msgspec.json.decode(data).get("status", 500)), data)
    raise ProtocolError(f"the stream has an event '{event.event}' that this client does not know")


def _require_end(ended: bool) -> None:
    if not ended:
        raise ConnectionFailedError("the stream broke off before its end")
