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
    ScoreRequest,
)
from cert.backends.control import Control, TokenBlock

__all__ = [
    "Backend",
    "Capabilities",
    "Control",
    "Generation",
    "GenerationRequest",
    "Message",
    "ModelIdentity",
    "Outcome",
    "Prompt",
    "Sampling",
    "ScoreRequest",
    "TokenBlock",
]
