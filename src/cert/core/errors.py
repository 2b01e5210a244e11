"""Every error that CERT raises on purpose, as one tree.

::

    CertError
    ├── InputError (ValueError)             what the caller passed cannot be worked on
    │   └── PromptTooLongError              the prompt is over the limit or the context window
    ├── ConfigurationError (ValueError)     a setting, threshold or option that cannot be right
    ├── DependencyMissingError              an optional package is needed; the hint names the extra
    ├── OutputError                         a result cannot be written where it was asked for
    ├── ResourceError                       something that the work needs is not usable
    │   ├── ModelNotFoundError              no such model directory, hub id or cached copy
    │   ├── UnsafeModelError                loading would run code from the model (pickle, remote code)
    │   └── ModelLoadError                  the files are there but do not make a working model
    └── GenerationError                     a generation was started and could not be finished
        └── NumericalError                  the model produced NaN or infinite logits

Errors are raised, never returned. Errors of a programmer (a wrong type inside the library, a broken
invariant) are not in this tree and pass through unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "CertError",
    "ConfigurationError",
    "DependencyMissingError",
    "GenerationError",
    "InputError",
    "ModelLoadError",
    "ModelNotFoundError",
    "NumericalError",
    "OutputError",
    "PromptTooLongError",
    "ResourceError",
    "UnsafeModelError",
]


class CertError(Exception):
    """Base of the tree.

    Attributes:
        code: stable machine-readable name of the class of error.
        retryable: whether the same call may succeed later without any change.
        retry_after: seconds to wait before that, where the source of the error said so.
        context: structured facts for logs and records; never prompts, outputs or secrets.
        hint: one sentence on what the user can do.
    """

    code: ClassVar[str] = "cert_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.context: dict[str, Any] = dict(context or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON-ready data, the same keys for every class."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "retry_after": self.retry_after,
            "context": self.context,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default pickling of exceptions, which workers in other
        # processes rely on.
        return (_rebuild, (type(self), self.message, self.hint, self.retry_after, self.context))


def _rebuild(
    cls: type[CertError],
    message: str,
    hint: str | None,
    retry_after: float | None,
    context: dict[str, Any],
) -> CertError:
    return cls(message, hint=hint, retry_after=retry_after, context=context)


class InputError(CertError, ValueError):
    """What the caller passed cannot be worked on: an empty prompt, a wrong type, a broken file."""

    code = "input"


class PromptTooLongError(InputError):
    """The prompt is over the configured limit or does not fit the model's context window."""

    code = "prompt_too_long"


class ConfigurationError(CertError, ValueError):
    """A setting, threshold or option that cannot be right."""

    code = "configuration"


class DependencyMissingError(CertError):
    """An optional package is not installed; the hint names the extra that brings it."""

    code = "dependency_missing"


class OutputError(CertError):
    """A result cannot be written where it was asked for."""

    code = "output"


class ResourceError(CertError):
    """Something that the work needs is not usable."""

    code = "resource"


class ModelNotFoundError(ResourceError):
    """There is no such model directory, hub id or cached copy."""

    code = "model_not_found"


class UnsafeModelError(ResourceError):
    """Loading the model would run code that comes with it (pickled weights, remote code)."""

    code = "unsafe_model"


class ModelLoadError(ResourceError):
    """The model's files are there but do not make a working model."""

    code = "model_load"


class GenerationError(CertError):
    """A generation was started and could not be finished."""

    code = "generation"


class NumericalError(GenerationError):
    """The model produced NaN or infinite logits, so that no probability can be stated."""

    code = "numerical"
