"""What is read of a stored file: one item a record, a generation or the error of that record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cert.backends.base import Generation, LogprobsMode, ModelIdentity, Outcome
from cert.core.errors import ConfigurationError, InputError

__all__ = ["StoredFormat", "StoredItem", "StoredOptions", "record_error", "stored_identity"]

StoredFormat: TypeAlias = Literal["auto", "jsonl", "parquet"]


@dataclass(frozen=True, slots=True)
class StoredOptions:
    """What a stored file does not say itself, and how much of it is read at once.

    Attributes:
        logprobs_mode: whether the log-probabilities of API responses are of the raw distribution.
        vocab_size: of the model that gave the responses; without it entropies have no upper bound.
        top_k: K; ``None`` takes what most steps of a response have.
        chosen_takes_a_place: as in `cert.backends.api_records.ReadOptions`.
        refuse_repeated_keys: report a JSON record in which an object has a key twice, at about a tenth
            of the speed; else the last one counts.
        max_line_bytes: a longer line is reported and passed over.
        max_row_group_values: a row group of a Parquet file with more values in one column is reported and
            passed over, since a small file can unfold to any size.

    Raises:
        ConfigurationError: a number that is not positive.
    """

    logprobs_mode: LogprobsMode = "unknown"
    vocab_size: int | None = None
    top_k: int | None = None
    chosen_takes_a_place: bool = True
    refuse_repeated_keys: bool = False
    max_line_bytes: int = 2**26
    max_row_group_values: int = 2**26

    def __post_init__(self) -> None:
        for name in ("vocab_size", "top_k", "max_line_bytes", "max_row_group_values"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True, eq=False, slots=True)
class StoredItem:
    """One generation of a stored file, or what is wrong with it.

    Attributes:
        number: line of a JSONL file or row of a Parquet file, counted from 1.
        outcome: the generation, or the error of this record.
        key: the caller's name of the record (``custom_id`` of a batch, ``key`` of ours), if it has one.
        choice: which answer of the record, where a request asked for several.
    """

    number: int
    outcome: Outcome
    key: str | None = None
    choice: int = 0

    def unwrap(self) -> Generation:
        """Return the generation.

        Raises:
            CertError: there is none.
        """
        if not isinstance(self.outcome, Generation):
            raise self.outcome
        return self.outcome


def record_error(message: str, *, hint: str | None = None, **context: object) -> InputError:
    """Return the error of one record; it says nothing of what the record holds."""
    return InputError(message, hint=hint, context=context)


def stored_identity(
    name: str | None, *, revision: str | None = None, vocab_size: int | None = None
) -> ModelIdentity:
    """Return the identity of a model that is known from a record alone."""
    return ModelIdentity(name or "unknown", revision, "stored", vocab_size, context_window=None)
