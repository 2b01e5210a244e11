"""A stored file in the place of a backend: what it holds can be read, nothing new be generated."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

from cert.backends.base import (
    Backend,
    Capabilities,
    Generation,
    GenerationRequest,
    ModelIdentity,
    ScoreRequest,
)
from cert.backends.control import Control
from cert.backends.stored.items import StoredFormat, StoredItem, StoredOptions, stored_identity
from cert.backends.stored.reading import read_stored, stored_format
from cert.core.errors import ConfigurationError

__all__ = ["StoredBackend"]


class StoredBackend(Backend):
    """The records of one file.

    Args:
        path: as `read_stored`.
        format: the same.
        options: the same.

    Raises:
        InputError: the file cannot be opened.
        DependencyMissingError: Parquet or ``.zst`` without pyarrow.
    """

    def __init__(
        self, path: str | Path, *, format: StoredFormat = "auto", options: StoredOptions | None = None
    ) -> None:
        self.path, self.options = Path(path), options or StoredOptions()
        self.format = stored_format(self.path, format)

    @property
    def identity(self) -> ModelIdentity:
        """The file; which model gave a record is the record's to say."""
        return stored_identity(f"stored:{self.path.name}", vocab_size=self.options.vocab_size)

    @property
    def capabilities(self) -> Capabilities:
        """What records may hold: the top K at most where they come from an API."""
        return Capabilities(
            logprobs="top_k",
            max_top_logprobs=None,
            logprobs_mode=self.options.logprobs_mode,
            generates=False,
            scores=False,
            scores_plain=False,
            scores_chats=False,
            streams=False,
            plain_prompts=False,
            chat=False,
            token_ids=False,
            seeds=False,
        )

    def records(self) -> Iterator[StoredItem]:
        """Return the records, as `read_stored`."""
        return read_stored(self.path, format=self.format, options=self.options)

    def begin(self, request: GenerationRequest, control: Control | None = None) -> Future[Generation]:
        """Refuse: there is no model.

        Raises:
            ConfigurationError: always.
        """
        del request, control
        self._refuse("generate")

    def begin_score(self, request: ScoreRequest, control: Control | None = None) -> Future[Generation]:
        """Refuse: there is no model.

        Raises:
            ConfigurationError: always.
        """
        del request, control
        self._refuse("score")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigurationError(
            f"stored records cannot {what}",
            hint="analyze_stored gives the signals of what is there",
            context={"missing": f"{what}s"},
        )
