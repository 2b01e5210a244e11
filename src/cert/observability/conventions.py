"""The names of the OpenTelemetry conventions for generative AI, by version.

All of them are of status *development* and have changed before: `gen_ai.system` became
`gen_ai.provider.name` in 1.37. What is emitted is chosen in one place, by the version.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["CONVENTIONS", "Conventions", "Version"]

Version: TypeAlias = Literal["1.36", "1.37"]


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """One version's names. Bucket bounds are those that the conventions ask for."""

    schema_url: str
    provider: str
    operation: str = "gen_ai.operation.name"
    request_model: str = "gen_ai.request.model"
    output_tokens: str = "gen_ai.usage.output_tokens"
    token_type: str = "gen_ai.token.type"  # noqa: S105  # a kind of token, not a secret
    error_type: str = "error.type"
    duration: str = "gen_ai.client.operation.duration"
    token_usage: str = "gen_ai.client.token.usage"  # noqa: S105  # the same
    duration_bounds: tuple[float, ...] = tuple(0.01 * 2**power for power in range(14))
    token_bounds: tuple[float, ...] = tuple(float(4**power) for power in range(14))


CONVENTIONS: dict[Version, Conventions] = {
    "1.36": Conventions(schema_url="https://opentelemetry.io/schemas/1.36.0", provider="gen_ai.system"),
    "1.37": Conventions(
        schema_url="https://opentelemetry.io/schemas/1.37.0", provider="gen_ai.provider.name"
    ),
}
