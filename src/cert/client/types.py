"""What a service answers; fields that a newer one adds are left aside."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "Alarm",
    "Analysis",
    "AnalysisPage",
    "AnalysisSummary",
    "BatchAnswer",
    "BatchItem",
    "Budget",
    "Calibration",
    "CalibrationList",
    "Costs",
    "DriftList",
    "DriftSeries",
    "Finished",
    "Measurement",
    "MeasurementEvent",
    "MeasurementPage",
    "StreamEvent",
    "Token",
    "Verdict",
]

Verdict: TypeAlias = Literal["pass", "fail", "undecided", "not_measured"]


class Analysis(msgspec.Struct, frozen=True):
    """One watched generation.

    Attributes:
        id: under which the service keeps it.
        model: as requests name it.
        reasons: why the verdict is what it is.
        label: whether it turned out right, where somebody said so.
        kept: it outlives the process that measured it.
        analysis: the record by the schema ``trajectory-analysis.v1.json``.
    """

    id: str
    model: str
    source: str
    reasons: list[str]
    analysis: dict[str, Any]
    label: bool | None = None
    group: str | None = None
    kept: bool = False

    @property
    def text(self) -> str:
        """The generated text."""
        return str(self.analysis["generated_text"])

    @property
    def verdict(self) -> Verdict:
        """What the gate says."""
        verdict: Verdict = self.analysis["verdict"]
        return verdict

    @property
    def passed(self) -> bool:
        """True for the verdict ``pass`` alone."""
        return self.verdict == "pass"

    @property
    def calibrated(self) -> bool:
        """Whether a certificate decided, so that the verdict comes with a promise."""
        return bool(self.analysis["gate"]["calibrated"])


class AnalysisSummary(msgspec.Struct, frozen=True):
    """One line of the list."""

    id: str
    created_at: str
    model: str
    source: str
    verdict: Verdict
    calibrated: bool
    reasons: list[str]
    finish_reason: str
    tokens: int
    excerpt: str
    label: bool | None = None


class AnalysisPage(msgspec.Struct, frozen=True):
    """Recent analyses, the latest first; ``next`` is the cursor of the next page."""

    items: list[AnalysisSummary]
    next: str | None = None


class BatchItem(msgspec.Struct, frozen=True):
    """The outcome of one prompt: a record, or the problem in its place."""

    record: Analysis | None = None
    error: dict[str, Any] | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """Outcomes in the order of the prompts."""

    items: list[BatchItem]
    failed: int


class Calibration(msgspec.Struct, frozen=True):
    """A certificate that is in force, and what the answers since say of its promise (``watch``, by model)."""

    id: str
    models: list[str]
    goal: str
    alpha: float
    promise: str
    score: str
    n: int
    n_units: int
    watch: dict[str, dict[str, Any]]
    delta: float | None = None
    certificate: dict[str, Any] | None = None


class CalibrationList(msgspec.Struct, frozen=True):
    """Every certificate in force, and which gate each model has."""

    items: list[Calibration]
    gates: dict[str, str]


class Token(msgspec.Struct, frozen=True):
    """One token of a stream.

    Attributes:
        token_id: ``None``, as ``signals``, for a last piece of text.
        alarm: whether the gate has raised its alarm; ``None`` where no gate watches tokens.
    """

    text: str
    token_id: int | None
    alarm: bool | None
    signals: dict[str, Any] | None = None


class Alarm(msgspec.Struct, frozen=True):
    """The gate's alarm, once, at the token with this index."""

    token: int


class Finished(msgspec.Struct, frozen=True):
    """The end of a stream: the analysis of the whole."""

    analysis: Analysis


StreamEvent: TypeAlias = Token | Alarm | Finished


class Measurement(msgspec.Struct, frozen=True):
    """A measurement as a job of the Coordination service; dollars are decimal text.

    Attributes:
        done_tasks: measurements of one system on one task that are done, of ``total``.
        summary: in short what was found, once it is done.
        error: the problem of one that failed.
    """

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: str
    total: int
    spent: Any
    done_tasks: int = msgspec.field(name="done")
    name: str | None = None
    summary: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing of it is to come."""
        return self.state in ("succeeded", "failed", "cancelled")


class MeasurementPage(msgspec.Struct, frozen=True):
    """Measurements, the latest first; ``next`` is the cursor of the next page."""

    items: list[Measurement]
    next: str | None = None


class MeasurementEvent(msgspec.Struct, frozen=True):
    """One event of a measurement: its name, its data, and the id to go on after."""

    event: str
    data: dict[str, Any]
    id: str


class DriftSeries(msgspec.Struct, frozen=True):
    """Where the scores of one system on one family of tasks stand.

    Attributes:
        id: names the series where its alarm is acknowledged.
        alarm: that stands, with its ``kind`` and ``raised_at``; ``None`` where there is none.
        acknowledged: alarms that were.
        acknowledgement: of the last of them: ``by`` whom (the id of a key), ``at`` when.
    """

    id: str
    system: str
    family: str
    phase: Literal["reference", "watching"]
    seen: int
    alarm: dict[str, Any] | None = None
    acknowledged: int = 0
    acknowledgement: dict[str, Any] | None = None


class DriftList(msgspec.Struct, frozen=True):
    """All systems of the tenant that are watched."""

    items: list[DriftSeries]


class Budget(msgspec.Struct, frozen=True):
    """What the tenant of the key may spend; a limit of ``None`` is none."""

    per_hour: Any = None
    total: Any = None
    spent_in_hour: Any = None
    spent_in_total: Any = None
    reserved: Any = None
    left_in_hour: Any = None
    left_in_total: Any = None


class Costs(msgspec.Struct, frozen=True):
    """What the measurements of the tenant cost, by day and model."""

    spent: Any
    saved: Any
    items: list[dict[str, Any]]
