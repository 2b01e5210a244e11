"""Every error that CERT raises on purpose, as one tree.

::

    CertError
    ├── InputError (ValueError)             what the caller passed cannot be worked on
    │   └── PromptTooLongError              the prompt is over the limit or the context window
    ├── ConfigurationError (ValueError)     a setting, threshold or option that cannot be right
    ├── InfeasibleError                     the data are too few for what is asked of them; see ``needed``
    ├── DependencyMissingError              an optional package is needed; the hint names the extra
    ├── OutputError                         a result cannot be written where it was asked for
    ├── ResourceError                       something that the work needs is not usable
    │   ├── ModelNotFoundError              no such model directory, hub id or cached copy
    │   ├── UnsafeModelError                loading would run code from the model (pickle, remote code)
    │   ├── ModelLoadError                  the files are there but do not make a working model
    │   └── OutOfMemoryError                the device has no memory left for this work
    ├── GenerationError                     a generation was started and could not be finished
    │   ├── NumericalError                  the model produced NaN or infinite logits
    │   ├── GenerationTimeoutError          it took longer than allowed and was stopped
    │   └── GenerationCancelledError        its caller gave it up
    ├── BatchError                          some of a batch failed; the others are in ``results``
    ├── QuorumError                         too few of those who were asked answered; see ``responses``
    ├── OverloadedError                     too much work is waiting already
    ├── DeadlineExceededError               the time for the whole call is over
    ├── CircuitOpenError                    calls are refused since the last ones failed
    ├── RateLimitedError                    our own limit on requests or tokens refuses the call
    ├── BudgetExceededError                 our own limit on dollars refuses the call
    ├── RetriesExhaustedError               every attempt failed; the last failure is the cause
    ├── UpstreamError                       a server that we call failed or refused
    │   ├── UpstreamConnectionError         no connection, or one that broke
    │   ├── UpstreamTimeoutError            no answer in time
    │   ├── UpstreamRateLimitError          it asks to slow down (429)
    │   ├── UpstreamUnavailableError        it is overloaded or broken (5xx, 529)
    │   ├── UpstreamRejectedError           it rejects the request as it is (other 4xx)
    │   └── UpstreamProtocolError           its answer cannot be understood
    └── StoreError                          a database or shared store is not usable
        ├── StoreUnusableError              and will not be until somebody acts: corrupt, newer, not writable
        └── EvidenceError                   the evidence record could not be kept, so the result is withheld

Errors are raised, never returned. Errors of a programmer (a wrong type inside the library, a broken
invariant) are not in this tree and pass through unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "BatchError",
    "BudgetExceededError",
    "CertError",
    "CircuitOpenError",
    "ConfigurationError",
    "DeadlineExceededError",
    "DependencyMissingError",
    "EvidenceError",
    "GenerationCancelledError",
    "GenerationError",
    "GenerationTimeoutError",
    "InfeasibleError",
    "InputError",
    "ModelLoadError",
    "ModelNotFoundError",
    "NumericalError",
    "OutOfMemoryError",
    "OutputError",
    "OverloadedError",
    "PromptTooLongError",
    "QuorumError",
    "RateLimitedError",
    "ResourceError",
    "RetriesExhaustedError",
    "StoreError",
    "StoreUnusableError",
    "UnsafeModelError",
    "UpstreamConnectionError",
    "UpstreamError",
    "UpstreamProtocolError",
    "UpstreamRateLimitError",
    "UpstreamRejectedError",
    "UpstreamTimeoutError",
    "UpstreamUnavailableError",
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


class InfeasibleError(CertError):
    """No threshold keeps the promise that is asked for on these data.

    Attributes:
        needed: how many more labelled units of the kind that the message names would do, as far as can be
            told; ``None`` where no number of them would.
    """

    code = "infeasible"
    needed: int | None = None


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


class OutOfMemoryError(ResourceError):
    """The device has no memory left for this work; a smaller batch or another device may do."""

    code = "out_of_memory"


class GenerationTimeoutError(GenerationError):
    """The generation took longer than allowed and was stopped.

    Attributes:
        partial: what was measured until then, ``None`` if nothing was. It does not travel to other
            processes.
    """

    code = "generation_timeout"
    partial: Any = None


class GenerationCancelledError(GenerationError):
    """The caller of the generation gave it up.

    Attributes:
        partial: as in `GenerationTimeoutError`.
    """

    code = "generation_cancelled"
    partial: Any = None


class BatchError(CertError):
    """Some items of a batch failed, after all of them were done.

    Attributes:
        results: in the order of the batch, the result or the error of each item. They do not travel to
            other processes.
    """

    code = "batch"
    results: Sequence[Any] = ()


class QuorumError(CertError):
    """Too few of those who were asked together answered for their answer to count.

    Attributes:
        responses: what was said until then, and who was absent. They do not travel to other processes.
    """

    code = "quorum"
    responses: Sequence[Any] = ()


class OverloadedError(CertError):
    """Too much work is waiting already, so that this call was not taken; ``retry_after`` says when to ask."""

    code = "overloaded"
    retryable = True


class DeadlineExceededError(CertError):
    """The time for the whole call, waiting and retries included, is over."""

    code = "deadline_exceeded"


class CircuitOpenError(CertError):
    """Calls are refused for now since the last ones failed; ``retry_after`` says for how long."""

    code = "circuit_open"


class RateLimitedError(CertError):
    """Our own limit on requests or tokens refuses the call."""

    code = "rate_limited"
    retryable = True


class BudgetExceededError(CertError):
    """Our own limit on dollars refuses the call."""

    code = "budget_exceeded"


class RetriesExhaustedError(CertError):
    """Every attempt failed; the last failure is the cause of this error."""

    code = "retries_exhausted"


class UpstreamError(CertError):
    """A server that we call failed or refused.

    Attributes:
        status: the HTTP status of its answer, ``None`` without an answer.
    """

    code = "upstream"

    @property
    def status(self) -> int | None:
        """The HTTP status of the answer, from ``context``."""
        status = self.context.get("status")
        return status if isinstance(status, int) else None


class UpstreamConnectionError(UpstreamError):
    """There is no connection to the server, or it broke before the answer was whole."""

    code = "upstream_connection"
    retryable = True


class UpstreamTimeoutError(UpstreamError):
    """The server gave no answer in time. It may have done the work, and may bill it."""

    code = "upstream_timeout"
    retryable = True


class UpstreamRateLimitError(UpstreamError):
    """The server asks to slow down (429)."""

    code = "upstream_rate_limit"
    retryable = True


class UpstreamUnavailableError(UpstreamError):
    """The server is overloaded or broken (5xx, 529)."""

    code = "upstream_unavailable"
    retryable = True


class UpstreamRejectedError(UpstreamError):
    """The server rejects the request as it is (a 4xx other than 408, 409 and 429); repeating it is no use."""

    code = "upstream_rejected"


class UpstreamProtocolError(UpstreamError):
    """The server's answer cannot be understood."""

    code = "upstream_protocol"
    retryable = True


class StoreError(CertError):
    """A database or a store that replicas share is not usable."""

    code = "store"
    retryable = True


class StoreUnusableError(StoreError):
    """A store will not be usable until somebody acts: it is corrupt, of a newer version, not writable."""

    code = "store_unusable"
    retryable = False


class EvidenceError(StoreError):
    """The evidence record could not be kept, so the result is withheld."""

    code = "evidence"
