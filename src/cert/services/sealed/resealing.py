"""Texts that an earlier key sealed, sealed anew with the present one, a few at a time."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from cert.core.errors import StoreUnusableError
from cert.services.sealed.cipher import Cipher

__all__ = ["Column", "Resealed", "reseal"]

T = TypeVar("T")

# Rows of one transaction: others that write wait no longer than it takes.
_AT_ONCE = 50


class _Database(Protocol):
    async def read(self, work: Callable[[sa.Connection], T]) -> T: ...

    async def write(self, work: Callable[[sa.Connection], T]) -> T: ...


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column with sealed texts.

    Attributes:
        of: the column, of bytes or of their base64.
        place: says for which place the text of a row was sealed.
        about: further columns that ``place`` asks for, besides those of the primary key.
    """

    of: sa.Column[Any]
    place: Callable[[sa.RowMapping], str]
    about: tuple[sa.Column[Any], ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether it holds base64."""
        return isinstance(self.of.type, sa.Text)

    @property
    def key(self) -> tuple[sa.Column[Any], ...]:
        """The primary key of its table."""
        return tuple(self.of.table.primary_key.columns)


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was done.

    Attributes:
        texts: that were sealed anew.
        left: that no key of ours opens, or that somebody changed meanwhile.
    """

    texts: int
    left: int

    def __add__(self, other: Resealed) -> Resealed:
        return Resealed(self.texts + other.texts, self.left + other.left)


async def reseal(database: _Database, cipher: Cipher, column: Column) -> Resealed:
    """Seal every text of a column anew that is not of the present key.

    It can be ended at any time and begun again, and done by several replicas at once: a text is replaced
    only by one that says the same, and only where it is still the one that was read.

    Raises:
        StoreError: the database cannot be used.
    """
    done, after = Resealed(0, 0), None
    while True:
        rows = await database.read(_others(cipher, column, after))
        if not rows:
            return done
        done += await _replace(database, column, [(row, _anew(cipher, column, row)) for row in rows])
        after = tuple(rows[-1][part.name] for part in column.key)


def _others(
    cipher: Cipher, column: Column, after: tuple[Any, ...] | None
) -> Callable[[sa.Connection], list[sa.RowMapping]]:
    # Nine bytes of header are twelve letters of base64.
    header: Any = base64.b64encode(cipher.header).decode() if column.is_text else cipher.header
    asked = (
        sa.select(*column.key, *column.about, column.of)
        .where(column.of.is_not(None), sa.func.substr(column.of, 1, len(header)) != header)
        .order_by(*column.key)
        .limit(_AT_ONCE)
    )
    if after is not None:
        asked = asked.where(sa.tuple_(*column.key) > sa.tuple_(*map(sa.literal, after)))
    return lambda connection: list(connection.execute(asked).mappings().all())


def _anew(cipher: Cipher, column: Column, row: sa.RowMapping) -> str | bytes | None:
    place = column.place(row)
    try:
        old = row[column.of.name]
        text = cipher.open(base64.b64decode(old) if column.is_text else bytes(old), place)
    except (StoreUnusableError, ValueError):
        return None
    sealed = cipher.seal(text, place)
    return base64.b64encode(sealed).decode() if column.is_text else sealed


def _replace(
    database: _Database, column: Column, rows: list[tuple[sa.RowMapping, str | bytes | None]]
) -> Awaitable[Resealed]:
    def put(connection: sa.Connection) -> Resealed:
        texts = left = 0
        for row, sealed in rows:
            if sealed is None:
                left += 1
                continue
            this = [part == row[part.name] for part in (*column.key, column.of)]
            statement = sa.update(column.of.table).where(*this).values({column.of.name: sealed})
            changed = connection.execute(statement).rowcount
            texts, left = texts + changed, left + 1 - changed
        return Resealed(texts, left)

    return database.write(put)
