"""Text from models and users made safe to look at: what is invisible or turns the line around is shown.

A bidirectional override can make a page say what its text does not, and characters without a shape can
carry a message that nobody sees. Both are replaced by their code point; everything else stays as it is.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

__all__ = ["Run", "label", "runs"]

# Joiners shape emoji and several scripts, and the Arabic, Syriac and Kaithi signs that Unicode calls
# format characters have a shape of their own.
_SHOWN_AS_THEY_ARE = frozenset(
    "\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
_STACKING_CATEGORIES = frozenset({"Mn", "Me"})
_MOST_MARKS = 8  # on one letter; more of them climb over the lines above
# Control, format, surrogate, line separator, paragraph separator.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of text of one kind.

    Attributes:
        kind: ``text`` as it stands, ``newline``, ``tab``, or ``hidden``: one character to be named.
        text: the characters; for ``hidden`` the name of the code point.
    """

    kind: Literal["text", "newline", "tab", "hidden"]
    text: str


def runs(text: str) -> list[Run]:
    """Split text into what can be shown as it stands and what has to be made visible."""
    found: list[Run] = []
    plain: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in _STACKING_CATEGORIES else 0
        run = Run("hidden", f"U+{ord(char):04X}") if marks > _MOST_MARKS else _special(char)
        if run is None:
            plain.append(char)
            continue
        if plain:
            found.append(Run("text", "".join(plain)))
            plain.clear()
        found.append(run)
    if plain:
        found.append(Run("text", "".join(plain)))
    return found


def label(text: str, longest: int = 40) -> str:
    """Return text on one line with spaces at its ends, line ends and hidden characters made visible."""
    if not text:
        return "(empty)"
    marks = {"newline": "↵", "tab": "⇥"}
    shown = "".join(
        f"⟨{run.text}⟩" if run.kind == "hidden" else marks.get(run.kind, run.text) for run in runs(text)
    )
    inner = shown.strip(" ")
    before = len(shown) - len(shown.lstrip(" "))
    shown = "␣" * before + inner + "␣" * (len(shown) - len(inner) - before)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _special(char: str) -> Run | None:
    if char == "\n":
        return Run("newline", char)
    if char == "\t":
        return Run("tab", char)
    if char not in _SHOWN_AS_THEY_ARE and unicodedata.category(char) in _HIDDEN_CATEGORIES:
        return Run("hidden", f"U+{ord(char):04X}")
    return None
