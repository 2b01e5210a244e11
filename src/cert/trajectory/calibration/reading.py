"""Labelled answers from files: everything that is not used is counted, and what would be wrong is refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cert.backends.stored import StoredItem, StoredOptions
from cert.core.errors import ConfigurationError, InputError
from cert.core.visible import label as shown
from cert.trajectory.calibration.answers import Answer, Broken, text_of
from cert.trajectory.calibration.conditions import Agreement
from cert.trajectory.calibration.contents import Contents
from cert.trajectory.calibration.label_file import Label, Labels, label_of
from cert.trajectory.calibration.labelled import Conditions, LabelledData
from cert.trajectory.calibration.measuring import SignalTable
from cert.trajectory.calibration.records import read_answers
from cert.trajectory.calibration.sources import identity, labels_and_digest, sha256
from cert.trajectory.types import TrajectoryConfig

__all__ = ["Duplicates", "read_labelled"]

Duplicates: TypeAlias = Literal["refuse", "drop"]

_NO_LABEL: Final = "no label"
_COPY: Final = "the same answer under another unit"
_FIELDS: Final = ("label", "correct")


def read_labelled(
    path: str | Path,
    *,
    label: str | None = None,
    labels: Labels | str | Path | None = None,
    unit: str | None = None,
    group: str | None = None,
    key: str | None = None,
    given: Conditions | None = None,
    duplicates: Duplicates = "refuse",
    most_broken: float = 0.05,
    options: StoredOptions | None = None,
) -> LabelledData:
    """Read answers with their labels and signals.

    Args:
        path: JSONL (also ``.gz``, ``.zst``) or Parquet: lines of ``cert analyze --json`` and ``cert batch``,
            responses with log-probabilities, or signals as ``write_summaries`` writes them.
        label: the field that says whether an answer is right: true, false, 1 or 0. ``None`` takes ``label``
            or ``correct``.
        labels: labels beside the data, or a file of them (`read_labels`), by the names of the answers.
        unit: the field that says whom or what an answer is about. Without one, and without units in
            ``labels``, each record is a unit of its own.
        group: the field of the group, for promises by group; or it is in ``labels``.
        key: the field that names a record, in place of ``key`` and ``custom_id``; a record without a name is
            called after its place, such as ``line 12``.
        given: conditions that the records do not say, such as the template. One that a record contradicts is
            refused.
        duplicates: what becomes of an answer that occurs, with its prompt, under another unit too. Copies of
            it would be in both halves of a split. ``drop`` keeps the first one. Under one unit, copies are
            draws of their own and are kept.
        most_broken: the largest share of records that may be broken, failures or stopped early.
        options: what the file does not say of its log-probabilities, and limits of reading.

    Returns:
        The answers that have labels, in the order of the file. ``dropped`` counts the others by reason.
        ``sha256`` is that of the file; with ``labels``, of the line ``DATA LABELS`` of two such digests.

    Raises:
        InputError: a label that is none, labels of answers that are not there, an answer without its unit or
            group, a name or content that occurs twice, conditions that differ, too many broken records, no
            label at all, or a file that cannot be read or changes meanwhile.
        DependencyMissingError: Parquet or ``.zst`` without pyarrow.
        ConfigurationError: a label field and labels beside the data.
    """
    path = Path(path)
    if labels is not None and label is not None:
        raise ConfigurationError("give a label field or labels beside the data, and not both")
    if not 0.0 <= most_broken <= 1.0:
        raise ConfigurationError(f"most_broken is a share in [0, 1], not {most_broken}")
    before = identity(path)
    digest = sha256(path)
    beside, labels_digest = labels_and_digest(labels)
    collected = _Collected(label, beside, unit, group, given or Conditions(), duplicates)
    names = [name for name in (label, unit, group) if name] + list(_FIELDS)
    for found in read_answers(path, fields=names, key=key, options=options):
        collected.add(found)
    if identity(path) != before:
        raise InputError(
            f"'{path}' was changed while it was read", hint="wait until whoever writes it is done"
        )
    if labels_digest is not None:
        digest = hashlib.sha256(f"{digest} {labels_digest}\n".encode()).hexdigest()
    return collected.finished(path, digest, most_broken)


class _Collected:
    """What has been read so far."""

    def __init__(
        self,
        field: str | None,
        beside: Labels | None,
        unit: str | None,
        group: str | None,
        given: Conditions,
        duplicates: Duplicates,
    ) -> None:
        self._field, self._beside = field, beside
        self._unit, self._group = unit, group
        self._given, self._agreement = given, Agreement(given)
        usual = TrajectoryConfig()
        if given.surprise_probability is not None:
            usual = replace(usual, surprise_probability_threshold=given.surprise_probability)
        self._config = usual
        self._signals = SignalTable(usual)
        self._contents = Contents(drop=duplicates == "drop")
        self._where: dict[str, str] = {}
        self._broken: dict[str, Broken] = {}
        self._nameless: list[Broken] = []
        self._dropped: Counter[str] = Counter()
        self._ids: list[str] = []
        self._correct: list[bool] = []
        self._units: list[str] = []
        self._groups: list[str | None] = []

    def add(self, found: Answer | Broken) -> None:
        """Take the next record."""
        if isinstance(found, Broken):
            if found.id is None:
                self._nameless.append(found)
            else:
                self._broken[found.id] = found
            return
        if found.id in self._where:
            raise InputError(
                f"two answers are called '{shown(found.id, 80)}': {self._where[found.id]} and {found.where}",
                hint="each answer needs a name of its own",
            )
        self._where[found.id] = found.where
        known = self._label_of(found)
        if known.correct is None:
            self._dropped[known.reason or _NO_LABEL] += 1
            return
        unit, group = self._unit_of(found, known), self._group_of(found, known)
        self._agreement.add(self._conditions_of(found), found.where)
        if not self._contents.is_new(found, unit, known.correct):
            self._dropped[_COPY] += 1
            return
        self._ids.append(found.id)
        self._correct.append(known.correct)
        self._units.append(unit)
        self._groups.append(group)
        self._signals.add(found.signals)

    def finished(self, path: Path, digest: str, most_broken: float) -> LabelledData:
        """Return the data, after everything that only the end can tell was checked."""
        lost = [*self._nameless, *(one for name, one in self._broken.items() if name not in self._where)]
        total = len(self._where) + len(lost)
        reasons = Counter(one.reason for one in lost)
        if len(lost) > most_broken * total:
            told = "; ".join(
                f"{count:,} times: {shown(reason, 120)}" for reason, count in reasons.most_common(5)
            )
            raise InputError(
                f"{len(lost):,} of {total:,} records of '{path}' cannot be used, the first of them "
                f"{lost[0].where}: {told}",
                hint="the promise would be about the others alone",
            )
        self._refuse_unknown_labels()
        if not self._ids:
            raise InputError(self._no_label(path, total))
        return LabelledData(
            ids=tuple(self._ids),
            correct=np.array(self._correct, dtype=np.bool_),
            columns=self._signals.columns(),
            units=_codes(self._units),
            groups=self._grouped(),
            conditions=self._agreement.conditions,
            sha256=digest,
            dropped=dict(self._dropped + reasons),
            unchecked=self._unchecked(),
        )

    def _label_of(self, found: Answer) -> Label:
        if self._beside is not None:
            return self._beside.by_key.get(found.id, Label(None))
        if self._field is not None:
            return Label(label_of(found.fields.get(self._field), found.where))
        values = [value for name in _FIELDS if (value := found.fields.get(name)) is not None]
        if len(values) > 1:
            raise InputError(f"{found.where} has both 'label' and 'correct'", hint="say which one counts")
        return Label(label_of(values[0] if values else None, found.where))

    def _unit_of(self, found: Answer, known: Label) -> str:
        if self._unit is not None:
            return text_of(found.fields.get(self._unit), self._unit, found.where)
        return found.record if known.unit is None else known.unit

    def _group_of(self, found: Answer, known: Label) -> str | None:
        if self._group is not None:
            return text_of(found.fields.get(self._group), self._group, found.where)
        return known.group

    def _conditions_of(self, found: Answer) -> Conditions:
        conditions = found.conditions
        if isinstance(found.signals, StoredItem):
            usual = self._config.surprise_probability_threshold
            conditions = replace(conditions, surprise_probability=usual)
        # The limit that a call is given is not in its record, which names the monitor's own.
        recorded, reached = conditions.max_new_tokens, found.tokens
        if self._given.max_new_tokens is not None:
            return replace(conditions, max_new_tokens=reached)
        if recorded is not None and reached is not None and reached != recorded:
            return replace(conditions, max_new_tokens=reached)
        return conditions

    def _refuse_unknown_labels(self) -> None:
        if self._beside is None:
            return
        unknown = [key for key in self._beside.by_key if key not in self._where and key not in self._broken]
        if unknown:
            first = ", ".join(f"'{shown(key)}'" for key in unknown[:3])
            raise InputError(
                f"{self._beside.source} has {len(unknown):,} labels of answers that the data do not have, "
                f"such as {first}",
                hint="are these the labels of another file, or of other names?",
            )
        for given, what in ((self._unit, "unit"), (self._group, "group")):
            having = [
                getattr(one, what) is not None for one in self._beside.by_key.values() if _is_label(one)
            ]
            if given is None and any(having) and not all(having):
                raise InputError(f"some labels of {self._beside.source} have a {what} and some have none")

    def _no_label(self, path: Path, total: int) -> str:
        if self._beside is not None:
            return f"none of the {total:,} records of '{path}' has a label in {self._beside.source}"
        name = f"'{self._field}'" if self._field else "'label' or 'correct'"
        return f"none of the {total:,} records of '{path}' has a label: {name} is in none of them"

    def _grouped(self) -> NDArray[Any] | None:
        if all(group is None for group in self._groups):
            return None
        groups = np.empty(len(self._groups), dtype=object)
        groups[:] = self._groups
        return groups

    def _unchecked(self) -> tuple[str, ...]:
        told = []
        if self._contents.unknown:
            told.append(
                f"{self._contents.unknown:,} answers have no prompt or text in their records: whether some "
                "are copies of others could not be looked up"
            )
        without = self._dropped.total() - self._dropped[_COPY]
        if without:
            told.append(
                f"{without:,} answers have no label: the promise holds for answers like those that have one, "
                "which all are only if chance chose what was labelled"
            )
        if self._unit is None and len(set(self._units)) == len(self._units):
            told.append("no unit was named, so that every answer counts as independent of all others")
        return tuple(told)


def _is_label(one: Label) -> bool:
    return one.correct is not None


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
