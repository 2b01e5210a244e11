"""Where tokens come from, behind one protocol."""

from cert.backends.base import (
    Backend,
    Capabilities,
    Generation,
    GenerationRequest,
    Message,
    ModelIdentity,
    Outcome,
    Prompt,
    Sampling,
)

__all__ = [
    "Backend",
    "Capabilities",
    "Generation",
    "GenerationRequest",
    "Message",
    "ModelIdentity",
    "Outcome",
    "Prompt",
    "Sampling",
]
