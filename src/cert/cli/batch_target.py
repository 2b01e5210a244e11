"""Where the records of a batch go: a file that can be gone on with, and belongs to one input and config."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from cert.cli.batch_done import Done, no_items, read_done, repair
from cert.cli.batch_file import RecordFile
from cert.cli.output import check_writable, write_text
from cert.core.errors import InputError, OutputError

__all__ = ["Target", "check_output"]

FORMATS = (".jsonl", ".parquet")
_KIND = "cert_batch"
_ANEW = "name another output, or begin anew with --overwrite"


def check_output(output: Path, source: Path) -> None:
    """Make sure that an output can be written and is not the input.

    Raises:
        InputError: its name ends otherwise, or it is the input.
        OutputError: it cannot be written.
    """
    if output.suffix.lower() not in FORMATS:
        raise InputError(f"'{output}' cannot be the output: its name must end in {' or '.join(FORMATS)}")
    check_writable(output)
    if output.exists() and output.samefile(source):
        raise InputError(f"'{output}' is the input and cannot be the output")
    if output.suffix.lower() == ".parquet":
        from cert.cli.batch_items import require_pyarrow

        require_pyarrow()


class Target:
    """The records of one batch.

    Records go to a file of lines from the first one on. A Parquet file is made of them when all items are
    done, and taken apart again when a later run goes on. What the batch was made with stands in a file
    beside the output.

    Args:
        output: that passed `check_output`.
        settings: what the batch is made with, as JSON can say it.
        overwrite: forget what is there as soon as the model is ready.
        retry_errors: items with an error are not done.

    Attributes:
        done: the items that it has.
        kept: the file that the records are in now.

    Raises:
        InputError: what is there belongs to another input, was made with other settings, or is none of ours.
        OutputError: it cannot be written, or another process writes it.
    """

    def __init__(
        self,
        output: Path,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        retry_errors: bool = False,
    ) -> None:
        self.output = output
        self._as_table = output.suffix.lower() == ".parquet"
        self._lines = output.with_name(output.name + ".part.jsonl") if self._as_table else output
        self._beside = output.with_name(output.name + ".meta.json")
        self._settings, self._overwrite, self._retry_errors = settings, overwrite, retry_errors
        self.done: Done = no_items()
        self.kept = self._lines

    def __enter__(self) -> Self:
        self._file = RecordFile(self._lines)
        try:
            if not self._overwrite:
                self._go_on()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self, model: Mapping[str, Any]) -> None:
        """Make sure that the model is the one that gave what is there; or begin anew.

        Raises:
            InputError: it is another model.
            OutputError: the output cannot be written.
        """
        if self._overwrite:
            self._file.clear()
            self._forget_table()
        if not self._file.is_empty():
            self._check("model", model)
            return
        about = {"schema_version": 1, "kind": _KIND, "settings": self._settings, "model": model}
        write_text(self._beside, json.dumps(about, indent=2) + "\n")

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record; it outlives this process, however that ends.

        Raises:
            OutputError: it could not be written.
        """
        self._file.add(record)

    def finish(self) -> None:
        """Give the output the form that its name asks for.

        Raises:
            OutputError: it could not be written; the records are kept beside it.
        """
        if self._as_table:
            from cert.cli.batch_parquet import write_table

            write_table(self._lines, self.output)
            self.kept = self.output
            self._file.clear()  # so that closing it takes it away

    def _go_on(self) -> None:
        if self._as_table and self._file.is_empty() and self.output.exists():
            self._check("settings", self._settings)
            self._file.fill(self._table())
        if self._file.is_empty():
            return
        self._check("settings", self._settings)
        repair(self._lines)
        self.done = read_done(self._lines, retry_errors=self._retry_errors)

    def _forget_table(self) -> None:
        try:
            if self._as_table and self.output.is_file():
                self.output.unlink()
        except OSError as error:
            raise OutputError(f"'{self.output}' cannot be replaced: {error.strerror or error}") from error

    def _table(self) -> Iterator[bytes]:
        from cert.cli.batch_parquet import lines_of_table

        return lines_of_table(self.output)

    def _check(self, part: str, now: Mapping[str, Any]) -> None:
        try:
            about = json.loads(self._beside.read_text(encoding="utf-8"))
            before = about[part] if about["kind"] == _KIND else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"'{self.output}' is there, and no '{self._beside.name}' tells how it was made", hint=_ANEW
            ) from error
        differences = list(_differences(before, json.loads(json.dumps(now))))
        if differences:
            raise InputError(
                f"'{self.output}' was made with other settings: {'; '.join(differences)}", hint=_ANEW
            )


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {json.dumps(before)} and is {json.dumps(now)}"
