"""What a batch has done already: its output file, read once, in 16 bytes an item."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from cert.core.errors import InputError, OutputError

__all__ = ["Done", "ItemKey", "KeySet", "no_items", "read_done", "repair"]

_Keys = npt.NDArray[np.uint64]
_MERGE = 65_536


@dataclass(frozen=True, slots=True)
class ItemKey:
    """What an item is known by when a run goes on: digests of its name and of what it asks, 64 bits each."""

    name: int
    content: int

    def __str__(self) -> str:
        return f"{self.name:016x}{self.content:016x}"


class _Outcome(msgspec.Struct):
    verdict: str


class _Failure(msgspec.Struct):
    retryable: bool


class _Kept(msgspec.Struct):
    digest: str
    analysis: _Outcome | None = None
    error: _Failure | None = None


class KeySet:
    """A set of 64-bit numbers that grows, in about 8 bytes each."""

    def __init__(self) -> None:
        self._sorted: _Keys = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def add(self, key: int) -> bool:
        """Add a key; ``False`` if it was there."""
        if key in self._recent or _place(self._sorted, key) is not None:
            return False
        self._recent.add(key)
        if len(self._recent) >= _MERGE:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent.clear()
        return True


class Done:
    """The items that need no more work.

    Attributes:
        verdicts: how often each verdict was given.
        errors: items whose error is final.
    """

    def __init__(self, names: array[int], contents: array[int], verdicts: Counter[str], errors: int) -> None:
        unsorted: _Keys = np.array(names, np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._names = unsorted[order]
        self._contents: _Keys = np.array(contents, np.uint64)[order]
        self.verdicts = verdicts
        self.errors = errors

    def __len__(self) -> int:
        return len(self._names)

    def has(self, key: ItemKey, line: int) -> bool:
        """Whether an item is done.

        Raises:
            InputError: something else was asked under the name of this item.
        """
        place = _place(self._names, key.name)
        if place is None:
            return False
        if int(self._contents[place]) != key.content:
            raise InputError(
                f"the output belongs to another input: it has another item than line {line} in its place",
                hint="name another output, or begin anew with --overwrite",
            )
        return True


def no_items() -> Done:
    """Return what an output that is not there has done."""
    return Done(array("Q"), array("Q"), Counter(), 0)


def repair(path: Path) -> None:
    """Cut off a last line that was only half written when the process was killed.

    Raises:
        OutputError: the file cannot be changed.
    """
    try:
        with path.open("r+b") as stream:
            end = position = stream.seek(0, 2)
            while position:
                start = max(0, position - _MERGE)
                stream.seek(start)
                found = stream.read(position - start).rfind(b"\n")
                if found >= 0:
                    position = start + found + 1
                    break
                position = start
            if position < end:
                stream.truncate(position)
    except OSError as error:
        raise OutputError(f"'{path}' could not be repaired: {error.strerror or error}") from error


def read_done(path: Path, *, retry_errors: bool = False) -> Done:
    """Read which items an output has; those with an error that may pass by itself are not done.

    Args:
        path: a file of records, repaired.
        retry_errors: items with any error are not done.

    Raises:
        InputError: it holds something else than records.
    """
    names, contents = array("Q"), array("Q")
    verdicts: Counter[str] = Counter()
    errors = 0
    for key, kept in _records(path):
        if kept.analysis is not None:
            verdicts[kept.analysis.verdict] += 1
        elif retry_errors or kept.error is None or kept.error.retryable:
            continue
        else:
            errors += 1
        names.append(key.name)
        contents.append(key.content)
    return Done(names, contents, verdicts, errors)


def _records(path: Path) -> Iterator[tuple[ItemKey, _Kept]]:
    decoder = msgspec.json.Decoder(_Kept)
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                kept = decoder.decode(line)
                yield ItemKey(int(kept.digest[:16], 16), int(kept.digest[16:], 16)), kept
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise InputError(
                    f"'{path}' is no output of `cert batch`: line {number} is no record of it",
                    hint="name another output, or begin anew with --overwrite",
                ) from error


def _place(keys: _Keys, key: int) -> int | None:
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place if place < len(keys) and int(keys[place]) == key else None
