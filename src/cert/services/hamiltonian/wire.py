"""What callers send, with its limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cert.backends.base import Message

__all__ = [
    "MOST_PROMPTS",
    "AnalyzeRequest",
    "BatchRequest",
    "ChatMessage",
    "LabelRequest",
    "ScoreRequest",
    "StreamRequest",
]

# What no deployment allows more of; an operator's own limits are lower.
MOST_CHARS = 1_000_000
MOST_PROMPTS = 1_000
MOST_TOKENS = 100_000
# What every JSON reader holds exactly.
_LARGEST = 2**53 - 1

ModelName = Annotated[str, Field(min_length=1, max_length=200, description="one of GET /v1/models")]
Text = Annotated[str, Field(min_length=1, max_length=MOST_CHARS, pattern=r"\S")]
_Item = Annotated[str, Field(min_length=1, max_length=MOST_CHARS)]
Detail = Annotated[
    Literal["summary", "tokens", "full"],
    Field(description="`summary`: no tokens; `tokens`: their signals; `full`: their candidates too"),
]
Group = Annotated[str, Field(max_length=200, description="of a certificate with groups")]


class _Request(BaseModel):
    # Strict: what the schema says is what is taken; "5" is no number.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ChatMessage(_Request):
    """One message of a chat."""

    role: Annotated[str, Field(min_length=1, max_length=40)]
    content: Annotated[str, Field(max_length=MOST_CHARS)]


class _Options(_Request):
    model: ModelName | None = None
    max_new_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, description="0 is greedy")] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    sampling_top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, le=_LARGEST)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3_600, description="seconds for the generation")] | None = None
    group: Group | None = None
    early_stop: Annotated[bool, Field(description="end at the alarm of a gate for the goal streaming")] = (
        False
    )

    def sampling(self) -> dict[str, float | int | None]:
        """How to generate, as `HamiltonianMonitor.analyze` takes it."""
        names = ("max_new_tokens", "temperature", "top_p", "sampling_top_k", "seed")
        return {name: getattr(self, name) for name in names}


class _Prompted(_Options):
    prompt: Text | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=500, strict=False)] | None = (
        None
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give a prompt or messages, and just one of them")
        return self

    def asked(self) -> str | list[Message]:
        """The prompt as a monitor takes it."""
        if self.prompt is not None:
            return self.prompt
        return [Message(message.role, message.content) for message in self.messages or ()]


# As the validators below have it.
_EITHER: list[Any] = [
    {"required": ["prompt"], "properties": {"prompt": {"type": "string"}, "messages": {"type": "null"}}},
    {"required": ["messages"], "properties": {"messages": {"type": "array"}, "prompt": {"type": "null"}}},
]
_EXAMPLE: dict[str, Any] = {"prompt": "What is the capital of Velmora?", "max_new_tokens": 40}
_CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of Velmora?"}],
    "temperature": 0.0,
}


class AnalyzeRequest(_Prompted):
    """Generate from a prompt and analyse the generation."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE, _CHAT], "oneOf": _EITHER})

    use_cache: bool = True
    detail: Detail = "full"


class StreamRequest(_Prompted):
    """The same, token by token; streams go past the cache."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE], "oneOf": _EITHER})

    detail: Detail = "full"


class BatchRequest(_Options):
    """Analyse many prompts; each has an outcome of its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompts": ["What is the capital of Velmora?", "Who founded Velmora?"]}]
        }
    )

    # A blank one is an error in its place, not one of the whole.
    prompts: Annotated[tuple[_Item, ...], Field(min_length=1, max_length=MOST_PROMPTS, strict=False)]
    use_cache: bool = True
    detail: Detail = "summary"


class ScoreRequest(_Request):
    """Read a text that is there already as if the model had written it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "What is the capital of Velmora?", "completion": "The capital is Orim."}],
            "oneOf": _EITHER,
        }
    )

    model: ModelName | None = None
    prompt: Text | None = None
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=500, strict=False)] | None = (
        None
    )
    completion: Annotated[
        Text | None, Field(description="the text; messages that end with the assistant's need none")
    ] = None
    timeout_s: Annotated[float, Field(gt=0, le=3_600)] | None = None
    group: Group | None = None
    use_cache: bool = True
    detail: Detail = "full"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give a prompt or messages, and just one of them")
        return self

    def asked(self) -> str | list[Message]:
        """The prompt as a monitor takes it."""
        if self.prompt is not None:
            return self.prompt
        return [Message(message.role, message.content) for message in self.messages or ()]


class LabelRequest(_Request):
    """Whether an answer turned out right."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"correct": True}]})

    correct: bool
