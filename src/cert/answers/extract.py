"""The final answer within what a model wrote: extractors by name, each of which may find nothing.

What finds nothing returns ``None``: no answer was found, which is neither an empty nor a wrong one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from cert.answers.normalize import bounded, fold
from cert.answers.numbers import find_numbers
from cert.core.errors import ConfigurationError

__all__ = [
    "EXTRACTORS",
    "Extraction",
    "Extractor",
    "boxed",
    "choice",
    "extract",
    "hash_marks",
    "last_number",
    "stated",
    "whole",
]

Extractor: TypeAlias = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer and the name of the extractor that found it."""

    answer: str
    extractor: str


_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*+")
_BARE = re.compile(r"[^\s$.,;]++")
_HASHES = re.compile(r"^[ \t]{0,8}+####(?!#)[ \t]{0,8}+(?P<answer>\S[^\n]*+)", re.MULTILINE)
_STATED = re.compile(
    r"\b(?:final |correct |right |best )?(?:answer|option|choice)\b[*_ ]{0,4}+"
    r"(?:(?:is|are|would be|must be)\b[*_ ]{0,4}+:?|:|=)[*_\s]{0,8}+",
    re.IGNORECASE,
)
# No sentence ends with these, nor with an initial.
_SHORT = "Co|Col|Dr|Gen|Inc|Jr|Lt|Ltd|Mr|Mrs|Ms|Mt|No|Prof|Sr|St|vs|[A-Za-z]"
_ABBREVIATIONS = "".join(rf"(?<!\b{word})" for word in _SHORT.split("|"))
_SENTENCE_END = re.compile(rf"\n|(?:[!?]|{_ABBREVIATIONS}\.)(?=[\"'”’)*_]{{0,4}}(?:\s|\Z))")
_WRAPPING = " \t*_`\"'“”‘’"

_ANY_LETTER = "ABCDEFGHIJ"


def whole(text: str) -> str | None:
    """Return the text without space around it; ``None`` if nothing is left."""
    return bounded(text).strip() or None


def boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{…}`` or ``\fbox{…}``; ``None`` if its brace stays open."""
    last = _last(_BOX, bounded(text))
    if last is None:
        return None
    if text[last.end() : last.end() + 1] == "{":
        return _braced(text, last.end())
    bare = _BARE.match(text, last.end())
    return bare[0] if bare else None


def hash_marks(text: str) -> str | None:
    """Return the last line that begins with ``####``, the form of GSM8K's solutions (arXiv 2110.14168)."""
    last = _last(_HASHES, bounded(text))
    return (last["answer"].strip() or None) if last else None


def stated(text: str) -> str | None:
    """Return what the last "the answer is …", "Answer: …" or the like says, to the end of its sentence."""
    last = _last(_STATED, bounded(text))
    if last is None:
        return None
    end = _SENTENCE_END.search(text, last.end())
    return _unwrapped(text[last.end() : end.start() if end else len(text)])


def last_number(text: str) -> str | None:
    """Return the last number as it reads; ``None`` if there is none or the last one cannot be read."""
    numbers = find_numbers(text)
    return numbers[-1].text if numbers and numbers[-1].value is not None else None


def choice(text: str, letters: str = _ANY_LETTER) -> str | None:
    """Return the letter of a multiple choice answer, as a capital.

    In this order: a box; the last "the answer is …"; the text alone or its beginning ("B", "(b)",
    "B. Paris"); the only letter in brackets anywhere. A word is no letter: "the answer is a dog" has none.

    Args:
        text: what the model wrote.
        letters: the letters on offer.

    Raises:
        ConfigurationError: the letters are not distinct capitals from A to Z.
    """
    if not letters or len(set(letters)) < len(letters) or not re.fullmatch("[A-Z]+", letters):
        raise ConfigurationError(f"the letters of a choice must be distinct capitals, not {letters!r}")
    for found in (boxed(text), _after_statement(text), text):
        if found is not None and (letter := _leading_letter(found, letters)):
            return letter
    bracketed = {m[1] for m in re.finditer(rf"\(([{letters}])\)", fold(text))}
    return bracketed.pop() if len(bracketed) == 1 else None


EXTRACTORS: Final[Mapping[str, Extractor]] = MappingProxyType(
    {
        "whole": whole,
        "boxed": boxed,
        "hash_marks": hash_marks,
        "stated": stated,
        "last_number": last_number,
        "choice": choice,
    }
)


def extract(text: str, *extractors: str | Extractor) -> Extraction | None:
    """Return what the first extractor that finds something finds.

    Args:
        text: what the model wrote.
        extractors: names of `EXTRACTORS` or callables of the user, in order.

    Raises:
        ConfigurationError: there is no extractor of that name, or none is given.
        InputError: the text is too long.
    """
    if not extractors:
        raise ConfigurationError("no extractor is given", hint=f"one or more of {', '.join(EXTRACTORS)}")
    for name, extractor in [_named(extractor) for extractor in extractors]:
        answer = extractor(bounded(text))
        if answer is not None:
            return Extraction(answer, name)
    return None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = deque(pattern.finditer(text), maxlen=1)
    return last[0] if last else None


def _named(extractor: str | Extractor) -> tuple[str, Extractor]:
    if callable(extractor):
        return getattr(extractor, "__name__", type(extractor).__name__), extractor
    if extractor not in EXTRACTORS:
        raise ConfigurationError(f"no extractor is named {extractor!r}", hint=", ".join(EXTRACTORS))
    return extractor, EXTRACTORS[extractor]


def _braced(text: str, start: int) -> str | None:
    depth = 0
    for brace in re.finditer(r"\\[{}\\]|[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start + 1 : start + brace.start()].strip() or None
    return None


def _unwrapped(text: str) -> str | None:
    return text.strip(_WRAPPING).rstrip(".,;:!?").strip(_WRAPPING) or None


def _after_statement(text: str) -> str | None:
    # The whole rest: "The answer is B. Paris" must not lose what tells a letter from a word.
    last = _last(_STATED, text)
    return text[last.end() :] if last else None


def _leading_letter(text: str, letters: str) -> str | None:
    r"""Return the letter that a text begins with: B, b), (B), **B**, ``\text{B}``, "B because"."""
    text = re.sub(r"\\(?:text|mathrm|mbox)\s?\{", "{", fold(text[:64])).strip(" \t\n*_`\"'“”‘’{[$")
    if match := re.match(rf"\(?([{letters}{letters.lower()}])(?:[)\]}}.:*,;$\n\"']|\s*\Z)", text):
        return match[1].upper()
    # A capital and a word: "B because". "A" and "I" are words themselves.
    match = re.match(rf"([{letters}])\s(?=[a-z(])", text)
    return match[1] if match and match[1] not in "AI" else None
