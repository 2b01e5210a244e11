"""Texts brought to one form before they are compared."""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass

from cert.core.errors import InputError

__all__ = ["MAX_CHARS", "Normalization", "bounded", "fold", "same_text_key", "squad_normalize"]

MAX_CHARS = 1 << 20

_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FRACTIONS = re.compile("[¼½¾⅐-⅟↉]")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_SQUAD_ARTICLES = re.compile(r"\b(?:an?|the)\b")
_SQUAD_PUNCTUATION = str.maketrans("", "", string.punctuation)


def bounded(text: str) -> str:
    """Return the text as it is.

    Raises:
        InputError: it is not a string, or longer than `MAX_CHARS`; everything here is linear in the length.
    """
    if not isinstance(text, str):
        raise InputError(f"an answer is a string, not {type(text).__name__}")
    if len(text) > MAX_CHARS:
        raise InputError(f"an answer has at most {MAX_CHARS} characters, not {len(text)}")
    return text


def same_text_key(text: str) -> str:
    """Return a form that only texts which read the same share: canonical Unicode (NFC), single spaces."""
    return " ".join(unicodedata.normalize("NFC", bounded(text)).split())


def fold(text: str) -> str:
    """Return the text in compatibility form (NFKC) with its numbers kept.

    NFKC alone reads 10² as 102 and 3½ as 31/2. Here a raised exponent becomes ``^2``, a fraction of one
    character is set off, digits of every script become ASCII ones, and minus signs and short dashes become
    hyphens.
    """
    text = _SUPERSCRIPTS.sub(_exponent, bounded(text))
    text = unicodedata.normalize("NFKC", _FRACTIONS.sub(_fraction, text))
    return "".join(map(_ascii_digit, text)).translate(_DASHES).replace("\u2044", "/")


def squad_normalize(text: str) -> str:
    """Return the form that SQuAD's official evaluation compares (arXiv 1606.05250, ``evaluate-v1.1.py``).

    Lower case, no ASCII punctuation, no articles, single spaces, in this order. It is there for results
    that must compare with published ones; as a test of sameness it is coarse: "1.5" and "15", "-5" and
    "5", "5%" and "5", "C++" and "C" are alike to it, and the answer "A" is empty.
    """
    text = bounded(text).lower().translate(_SQUAD_PUNCTUATION)
    return " ".join(_SQUAD_ARTICLES.sub(" ", text).split())


@dataclass(frozen=True, slots=True)
class Normalization:
    """SQuAD's idea without its collisions: what is dropped never carries a number or the whole answer.

    Points, commas, colons and signs of numbers stay, as do symbols (``%``, ``$``, ``+``). A lone "A", a
    capital "A" within a text ("vitamin A") and an article at the end stay. A text that would come out
    empty keeps its punctuation.

    Attributes:
        ignore_case: compare case-folded.
        drop_articles: drop English a, an, the before a word.
        drop_punctuation: drop sentence punctuation; hyphens between letters become spaces.
    """

    ignore_case: bool = True
    drop_articles: bool = True
    drop_punctuation: bool = True

    def __call__(self, text: str) -> str:
        """Return the normalised text."""
        whole = fold(text)
        text = _MARKS.sub(_mark, whole) if self.drop_punctuation else whole
        words = text.split() or whole.split()
        if self.drop_articles:
            words = [word for i, word in enumerate(words) if not _is_article(words, i)]
        text = " ".join(words)
        return unicodedata.normalize("NFKC", text.casefold()) if self.ignore_case else text


_MARKS = re.compile(r"[^\w\s]")
_APOSTROPHES = "'’‘ʼ`"
_BEFORE_A_NUMBER = ".$€£¥₹"


def _mark(match: re.Match[str]) -> str:
    """Return what stands for one character that is neither of a word nor space."""
    mark, text, i = match[0], match.string, match.start()
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    if mark in _APOSTROPHES:
        return ""
    if mark == ".":
        return mark if after.isdigit() else ""
    if mark in ",:":
        return mark if before.isdigit() and after.isdigit() else " "
    if mark == "-":
        return mark if _is_sign(before, after) else " "
    if mark == "*":
        return mark if before.isalnum() and after.isalnum() else " "
    if mark == "#":
        return mark if before.isalpha() else " "
    return mark if unicodedata.category(mark)[0] != "P" or mark in "%‰&/@\\" else " "


def _is_sign(before: str, after: str) -> bool:
    if after.isdigit() or (after and after in _BEFORE_A_NUMBER):
        return not before.isalpha()
    return after.isalpha() and not before.isalnum()


def _is_article(words: list[str], i: int) -> bool:
    word = words[i]
    if i + 1 == len(words) or not words[i + 1][0].isalnum():
        return False
    # A capital A inside a text is a name ("hepatitis A virus"); at the start it is one before a name alone.
    sentence_start = word == "A" and i == 0 and words[1][0].islower()
    return word == "a" or sentence_start or word.casefold() in {"an", "the"}


def _exponent(match: re.Match[str]) -> str:
    plain = unicodedata.normalize("NFKC", match[0]).translate(_DASHES)
    return f"^{plain}" if any(map(str.isdigit, plain)) else plain


def _fraction(match: re.Match[str]) -> str:
    text, start, end = match.string, match.start(), match.end()
    before = " " if text[start - 1 : start].isdigit() else ""
    after = " " if text[end : end + 1].isdigit() and match[0] != "⅟" else ""
    return before + unicodedata.normalize("NFKC", match[0]) + after


def _ascii_digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if character.isdecimal() else character
