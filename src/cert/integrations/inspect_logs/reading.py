"""A log of Inspect from its file, in either format.

Of an ``.eval`` archive only the header and the summaries are read, which have scores and tokens of every
sample, and no transcript. Format: inspect_ai/log/_recorders/eval.py and json.py, log schema 2.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from cert.core.errors import InputError
from cert.integrations.inspect_logs.archive import Archive
from cert.integrations.inspect_logs.records import InspectLog, Key, Record, log_of, record_of
from cert.integrations.inspect_logs.wire import NULL, WireHeader, WireLog, WireSample, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_log"]

_SCHEMA: Final = 2
_MOST_JSON: Final = 512 * 1024**2
_ZIP: Final = b"PK\3\4"
_ENDED: Final = ("success", "cancelled", "error")


def read_log(path: str | os.PathLike[str]) -> InspectLog:
    """Read a log that has ended, however it ended.

    Raises:
        InputError: the file is no such log, or is damaged, too large, of another version, without samples or
            not ended; the message names it.
        DependencyMissingError: it is compressed by zstandard, which is not installed.
    """
    file = Path(path)
    with _opened(file) as stream:
        start = stream.read(len(_ZIP))
        stream.seek(0)
        if start == _ZIP:
            header, samples, invalid = _of_archive(file, Archive(file, stream))
        else:
            header, samples, invalid = _of_json(file, stream)
    _check(file, header)
    try:
        return log_of(str(file), header, _records(header, samples, invalid))
    except InputError as error:
        raise InputError(f"'{file}' cannot be used: {error.message}", hint=error.hint) from error


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait
            raise InputError(f"'{file}' is no regular file")
        with file.open("rb") as stream:
            yield stream
    except OSError as error:
        raise InputError(f"'{file}' cannot be read: {error.strerror or error}") from error


def _of_archive(file: Path, archive: Archive) -> tuple[WireHeader, list[WireSample], set[Key]]:
    if "header.json" not in archive:
        if "_journal/start.json" in archive:
            raise _not_ended(file)
        raise InputError(f"'{file}' is no log of Inspect: it has no 'header.json'")
    header = decode(archive.read("header.json"), WireHeader, f"'header.json' of '{file}'")
    if "summaries.json" not in archive:
        return header, [], set()
    _check(file, header)
    summaries = decode(archive.read("summaries.json"), list[WireSample], f"'summaries.json' of '{file}'")
    return header, summaries, _invalid(file, archive, summaries) if header.invalidated else set()


def _invalid(file: Path, archive: Archive, summaries: Iterable[WireSample]) -> set[Key]:
    """Return the samples that somebody declared invalid, which summaries do not tell."""
    found = set()
    for one in summaries:
        name = f"samples/{one.id}_epoch_{one.epoch}.json"
        sample = decode(archive.read(name), WireSample, f"a sample of '{file}'")
        if sample.invalidation != NULL:
            found.add((str(one.id), one.epoch))
    return found


def _of_json(file: Path, stream: IO[bytes]) -> tuple[WireHeader, list[WireSample], set[Key]]:
    data = stream.read(_MOST_JSON + 1)
    if len(data) > _MOST_JSON:
        raise InputError(
            f"'{file}' is larger than {_MOST_JSON // 1024**2} MiB",
            hint="as an archive it can be larger: inspect log convert --to eval",
        )
    log = decode(data, WireLog, f"'{file}'")
    samples = log.samples or []
    return log, samples, {(str(one.id), one.epoch) for one in samples if one.invalidation != NULL}


def _check(file: Path, header: WireHeader) -> None:
    if header.version != _SCHEMA:
        raise InputError(
            f"'{file}' is a log of version {header.version}; version {_SCHEMA} is read",
            hint="Inspect itself brings older logs up to date: inspect log convert --to eval",
        )
    if header.status == "started":
        raise _not_ended(file)
    if header.status not in _ENDED:
        raise InputError(f"'{file}' has the status '{header.status[:40]}', which is none of Inspect's")


def _records(header: WireHeader, samples: list[WireSample], invalid: set[Key]) -> dict[Key, Record]:
    if not samples:
        raise InputError(
            "it has no samples", hint="samples are kept unless Inspect runs with --no-log-samples"
        )
    score_on_error = bool(header.eval.config.score_on_error)
    records: dict[Key, Record] = {}
    for sample in samples:
        key = str(sample.id), sample.epoch
        named = f"sample '{key[0][:80]}', epoch {sample.epoch}"
        if sample.epoch < 1:
            raise InputError(f"{named}: epochs count from 1")
        if key in records:
            raise InputError(f"{named}, is there twice")
        try:
            records[key] = record_of(sample, score_on_error=score_on_error, invalidated=key in invalid)
        except InputError as error:
            raise InputError(f"{named}: {error.message}") from error
    return records


def _not_ended(file: Path) -> InputError:
    return InputError(
        f"'{file}' has not ended: it is still being written, or its run was killed",
        hint="wait for the end, or let Inspect finish it: inspect log recover, inspect eval-retry",
    )
