"""What callers are shown; the forms of ``trajectory-analysis.v1.json`` and of what is around it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Analysis",
    "AnalysisPage",
    "AnalysisRecord",
    "AnalysisSummary",
    "BatchAnswer",
    "BatchItem",
    "Calibration",
    "CalibrationList",
    "ModelCard",
    "ModelList",
    "Number",
    "Risk",
    "Watch",
]

Number: TypeAlias = float | Literal["Infinity", "-Infinity"] | None
Verdict: TypeAlias = Literal["pass", "fail", "undecided", "not_measured"]
Source: TypeAlias = Literal["analyze", "batch", "stream", "score", "chat"]
_NUMBER = "nats, unless the name says otherwise; null is not measured"


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Identity(_Shown):
    """Which model answered."""

    name: str
    revision: str | None
    backend: str
    vocab_size: int | None
    context_window: int | None
    device: str | None
    dtype: str | None


class Check(_Shown):
    """One rule of the gate on one answer."""

    signal: str
    statistic: Literal["mean", "max", "final", "score"]
    threshold: Number
    lower: Number
    upper: Number
    outcome: Verdict
    token: int | None
    reason: str


class CertifiedBy(_Shown):
    """The certificate that decided, and its promise."""

    id: str
    goal: str
    alpha: float
    delta: float | None
    promise: str
    signed_by: str | None
    unchecked: list[str]
    waived: list[str]
    void: str | None


class Gate(_Shown):
    """What decided, and why."""

    profile: str
    calibrated: bool
    checks: list[Check]
    certificate: CertifiedBy | None


class EarlyStop(_Shown):
    """How the gate's alarm ended the generation."""

    alarm_at: int
    generated: int
    max_new_tokens: int
    delay: int
    saved_at_most: int


class ShownMessage(_Shown):
    """One message of the prompt."""

    role: str
    content: str


class Analysis(_Shown):
    """One watched generation, as the schema ``trajectory-analysis.v1.json`` has it.

    ``tokens``, ``top`` and ``stop`` are there as ``detail`` asks.
    """

    schema_version: Literal[1]
    kind: Literal["trajectory_analysis"]
    cert_version: str
    created_at: str
    model: Identity
    logprobs_mode: Literal["raw", "processed", "unknown"]
    sampling: dict[str, float | int | None] | None
    config: dict[str, float | int | None]
    prompt: str | list[ShownMessage] | None
    prompt_tokens: int | None
    generated_text: str
    finish_reason: str
    token_ids_known: bool
    duration_s: float | None
    stages: dict[str, float]
    from_cache: bool
    early_stop: EarlyStop | None
    verdict: Verdict
    passed_quality_check: bool
    gate: Gate
    signals: Annotated[dict[str, Number], Field(description=_NUMBER)]
    tokens: Annotated[
        dict[str, list[Number | str]] | None, Field(description="columns with an entry a token")
    ] = None
    top: Annotated[
        dict[str, list[list[Number | str]]] | None, Field(description="the K likeliest a token")
    ] = None
    stop: Annotated[dict[str, Any] | None, Field(description="the model's decision to end")] = None


class AnalysisRecord(_Shown):
    """One analysis with what the service knows of it."""

    schema_version: Literal[1]
    id: str
    model: Annotated[str, Field(description="as requests name it")]
    source: Source
    group: str | None
    label: Annotated[bool | None, Field(description="whether it turned out right, where somebody said so")]
    kept: Annotated[bool, Field(description="whether it outlives the process that measured it")]
    reasons: list[str]
    analysis: Analysis


class AnalysisSummary(_Shown):
    """One line of the list."""

    id: str
    created_at: str
    model: str
    source: Source
    verdict: Verdict
    calibrated: bool
    reasons: list[str]
    finish_reason: str
    tokens: int
    excerpt: Annotated[str, Field(description="the beginning of the answer")]
    label: bool | None


class AnalysisPage(_Shown):
    """Recent analyses, the latest first."""

    schema_version: Literal[1]
    items: list[AnalysisSummary]
    next: Annotated[str | None, Field(description="the cursor of the next page; null at the end")]


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class BatchItem(_Shown):
    """The outcome of one prompt: a record, or the error in its place."""

    record: AnalysisRecord | None = None
    error: Problem | None = None


class BatchAnswer(_Shown):
    """Outcomes in the order of the prompts."""

    schema_version: Literal[1]
    items: list[BatchItem]
    failed: int


class Risk(_Shown):
    """What labels say of the promised rate."""

    group: str | None
    counted: int
    events: int
    rate: Number
    bound: float
    by_luck: float | None


class Watch(_Shown):
    """Whether the promise still stands, by this tenant's answers and labels."""

    state: Literal["standing", "shifted", "void"]
    seen: int
    not_measured: int
    evidence: Number
    shifted_at: int | None
    watched: bool
    labels: int
    risks: list[Risk]
    void_at: int | None


class Calibration(_Shown):
    """A certificate that is in force."""

    schema_version: Literal[1]
    id: str
    models: Annotated[list[str], Field(description="whose gate it is")]
    goal: str
    alpha: float
    delta: float | None
    promise: str
    score: str
    threshold: Number
    groups: dict[str, Number] | None
    created_at: str
    n: int
    n_units: int
    signed_by: str | None
    unchecked: list[str]
    waived: list[str]
    notes: list[str]
    watch: Annotated[dict[str, Watch], Field(description="by model")]
    certificate: Annotated[dict[str, Any] | None, Field(description="the whole, where one is asked for")] = (
        None
    )


class CalibrationList(_Shown):
    """Every certificate in force, and which gate each model has."""

    schema_version: Literal[1]
    items: list[Calibration]
    gates: Annotated[
        dict[str, str], Field(description="by model: the id of its certificate, or the profile of thresholds")
    ]


class ModelCard(BaseModel):
    """A model as OpenAI's API lists it, with what decides on its answers."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The models that may be asked for."""

    object: Literal["list"]
    data: list[ModelCard]
