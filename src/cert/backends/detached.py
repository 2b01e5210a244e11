"""Errors that go from one thread to another, or stay in a list of results."""

from __future__ import annotations

import traceback
from typing import TypeVar

__all__ = ["detached"]

E = TypeVar("E", bound=BaseException)


def detached(error: E, *, noted: bool = True) -> E:
    """Return an error that holds no frames; where it was raised is kept as a note.

    A traceback keeps alive the local variables of every function that it passed and of their callers: the
    batch, its tensors and the model, for as long as somebody keeps the error.

    Args:
        error: it is changed, and its causes with it.
        noted: ``False`` for an error that says all there is to say.
    """
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        if noted:
            link.add_note("raised here:\n" + "".join(traceback.format_tb(link.__traceback__)).rstrip())
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
