"""Places in a list as callers see them: digits, of which they need to know nothing."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Query

__all__ = ["Cursor", "cursor_of", "place_of"]

Cursor: TypeAlias = Annotated[
    str | None, Query(pattern="^[0-9]{1,18}$", description="`next` of the page before")
]


def cursor_of(place: int | None) -> str | None:
    """Return a place as callers see it."""
    return None if place is None else str(place)


def place_of(cursor: str | None) -> int | None:
    """Return the place of a cursor, which the route has checked."""
    return None if cursor is None else int(cursor)
