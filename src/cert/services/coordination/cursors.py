"""Places in a list as callers see them."""

from __future__ import annotations

import base64
import binascii

from cert.core.errors import InputError

__all__ = ["cursor_of", "place_of"]


def cursor_of(place: int | None) -> str | None:
    """Return a place as callers see it."""
    return None if place is None else base64.urlsafe_b64encode(str(place).encode()).decode().rstrip("=")


def place_of(cursor: str | None) -> int | None:
    """Return the place of a cursor.

    Raises:
        InputError: it is none that `cursor_of` gave.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii")
        if text.isascii() and text.isdecimal() and len(text) < 19:
            return int(text)
    except (binascii.Error, ValueError):
        pass
    raise InputError("the cursor is none that a page gave", hint="take `next` of the page before")
