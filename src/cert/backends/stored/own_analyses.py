"""Our own analyses (``trajectory-analysis.v1``), read back as the generations that they are of.

What was recorded comes back bit for bit, so that a new analysis with the same settings gives the same
signals. An entropy is known where its two bounds are equal. Of the stop token, the candidates were not
written and are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np

from cert.backends.base import FinishReason, Generation, LogprobsMode, Message, ModelIdentity, Sampling
from cert.backends.stored.checks import check_offsets, check_steps
from cert.backends.stored.items import record_error
from cert.core.errors import ConfigurationError
from cert.signals.steps import FloatArray, TokenSteps

__all__ = ["RecordedTexts", "read_analysis"]

Number: TypeAlias = float | Literal["Infinity", "-Infinity"] | None
Column: TypeAlias = list[Number]
Id: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class StoredMessage(msgspec.Struct):
    """A message of a chat."""

    role: str
    content: str


class StoredSampling(msgspec.Struct):
    """As `cert.backends.base.Sampling`."""

    temperature: float
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None


class StoredModel(msgspec.Struct):
    """As `cert.backends.base.ModelIdentity`."""

    name: str
    revision: str | None
    backend: str
    vocab_size: Count | None
    context_window: int | None
    device: str | None = None
    dtype: str | None = None


class Tokens(msgspec.Struct):
    """The columns of the tokens from which all others follow."""

    id: list[Id]
    text: list[str]
    start: list[Count]
    end: list[Count]
    logprob: Column
    entropy_lower: Column
    entropy_upper: Column
    self_certainty: Column


class Top(msgspec.Struct):
    """The K candidates of each token."""

    id: list[list[Id]]
    text: list[list[str]]
    logprob: list[Column]


class Stop(msgspec.Struct):
    """The token that ended the answer."""

    id: Id
    text: str
    logprob: Number
    entropy: Number


class StoredConfig(msgspec.Struct):
    """Of the settings, what the columns of an answer without tokens do not tell: K."""

    top_k: Count = 0


class Analysis(msgspec.Struct):
    """What is read of an analysis."""

    schema_version: Literal[1]
    kind: Literal["trajectory_analysis"]
    model: StoredModel
    logprobs_mode: LogprobsMode
    sampling: StoredSampling | None
    prompt: str | list[StoredMessage] | None
    prompt_tokens: Count | None
    generated_text: str
    finish_reason: FinishReason
    duration_s: float | None
    tokens: Tokens
    top: Top
    stop: Stop | None
    token_ids_known: bool = True
    stages: dict[str, float] = {}
    config: StoredConfig = msgspec.field(default_factory=StoredConfig)


_DECODER = msgspec.json.Decoder(Analysis)


class RecordedTexts:
    """Names the tokens that a record has texts of."""

    def __init__(self, texts: dict[int, str]) -> None:
        self.texts = texts

    def text(self, token_id: int) -> str:
        """Return the text of one token, empty where the record has none."""
        return self.texts.get(token_id, "")


def read_analysis(data: bytes | msgspec.Raw) -> Generation:
    """Read one analysis.

    Raises:
        InputError: it is not of this form or contradicts itself.
    """
    try:
        a = _DECODER.decode(data)
        sampling = None if a.sampling is None else Sampling(**msgspec.structs.asdict(a.sampling))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigurationError) as error:
        raise record_error(f"the analysis cannot be read: {error}") from error
    steps = _steps(a)
    offsets = np.array([a.tokens.start, a.tokens.end], dtype=np.int64).T
    check_steps(steps)
    check_offsets(offsets, a.generated_text)
    return Generation(
        prompt=_prompt(a.prompt),
        text=a.generated_text,
        steps=steps,
        offsets=np.ascontiguousarray(offsets),
        finish_reason=a.finish_reason,
        stop_step=None if a.stop is None else _stop_step(a.stop, a.model.vocab_size),
        prompt_tokens=a.prompt_tokens,
        sampling=sampling,
        model=ModelIdentity(**msgspec.structs.asdict(a.model)),
        logprobs_mode=a.logprobs_mode,
        vocabulary=RecordedTexts(_texts(a)),
        duration_s=a.duration_s,
        token_ids_known=a.token_ids_known,
        stages=tuple(a.stages.items()),
    )


def _prompt(prompt: str | list[StoredMessage] | None) -> str | tuple[Message, ...] | None:
    return tuple(Message(m.role, m.content) for m in prompt) if isinstance(prompt, list) else prompt


def _steps(a: Analysis) -> TokenSteps:
    columns: list[Sequence[Any]] = [getattr(a.tokens, name) for name in a.tokens.__struct_fields__]
    columns += [a.top.id, a.top.text, a.top.logprob]
    widths = {len(row) for column in columns[-3:] for row in column}
    if len({len(column) for column in columns}) != 1 or len(widths) > 1:
        raise record_error("the columns of the tokens differ in length")
    shape = (len(a.top.id), widths.pop() if widths else a.config.top_k)
    lower, upper = _floats(a.tokens.entropy_lower), _floats(a.tokens.entropy_upper)
    return TokenSteps.build(
        token_ids=a.tokens.id,
        logprob=_floats(a.tokens.logprob),
        top_ids=np.array(a.top.id, dtype=np.int64).reshape(shape),
        top_logprobs=np.array(a.top.logprob, dtype=np.float64).reshape(shape),
        entropy=np.where(lower == upper, lower, np.nan),
        self_certainty=_floats(a.tokens.self_certainty),
        vocab_size=a.model.vocab_size,
    )


def _stop_step(stop: Stop, vocab_size: int | None) -> TokenSteps:
    none = np.empty((1, 0))
    return TokenSteps.build(
        token_ids=[stop.id],
        logprob=_floats([stop.logprob]),
        top_ids=none,
        top_logprobs=none,
        entropy=_floats([stop.entropy]),
        vocab_size=vocab_size,
    )


def _texts(a: Analysis) -> dict[int, str]:
    """Return texts by id; of the answer's own tokens their part of the text, if nothing better is known."""
    texts = dict(zip(a.tokens.id, a.tokens.text, strict=True))
    for ids, row in zip(a.top.id, a.top.text, strict=True):
        texts.update(zip(ids, row, strict=True))
    return texts if a.stop is None else texts | {a.stop.id: a.stop.text}


def _floats(values: Column) -> FloatArray:
    # None becomes NaN, and the two names of infinity are read as such.
    return np.array(values, dtype=np.float64)
