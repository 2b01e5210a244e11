"""How numbers are written: the patterns, LaTeX brought to plain characters, and what makes a number a part.

Every pattern is linear in the text: repeats are possessive or bounded, and looks around a number are short.
"""

from __future__ import annotations

import re
from typing import Final

from cert.answers.normalize import bounded, fold

__all__ = ["NUMBER", "PREFIX", "SCALES", "is_part_of_expression", "plain_notation"]

SCALES: Final = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

_CURRENCY = "$€£¥₹₩₽₺₪₫฿₴₦"
_DIGITS = r"(?:\d++(?:[.,_'’]\d++)*+|\.\d++)"
_RAISED = r"\ ?(?:\^|\*\*(?=[\w{(+-]))"

NUMBER: Final = re.compile(
    rf"""
    (?<![\w^.])(?<!\^[{{+-])(?<![\w)]\*\*)   # no part of a word, of another number or of an exponent
    (?P<mantissa>{_DIGITS})
    (?:[eE](?P<e>[+-]?\d++)(?!\w))?+
    (?:\ ?[*×xX·⋅]\ ?10{_RAISED}\ ?(?P<brace>\{{)?+(?P<ten>[+-]?\d++)(?(brace)\}})(?!\w))?+
    (?P<power>{_RAISED}\ ?(?P<curly>\{{)?+(?P<exponent>[+-]?\d++)?+(?(curly)\}}))?+
    (?P<tower>{_RAISED})?+
    (?:
      (?P<over>(?:\ {{1,2}}+(?P<numerator>\d++))?+\ ?/\ ?(?P<denominator>{_DIGITS}))
      (?P<chain>(?:\ ?/\ ?{_DIGITS})++)?+
    )?+
    (?P<scales>(?:\ {{1,2}}+(?:{"|".join(SCALES)})s?\b){{0,3}}+)
    (?:\ ?(?P<percent>%|percent\b|per\ cent\b)|\ ?(?P<after>[{_CURRENCY}]))?+
    (?P<suffix>\w*+)
    """,
    re.VERBOSE | re.IGNORECASE,
)
PREFIX: Final = re.compile(rf"(?P<outer>[-+]\ ?)?(?P<currency>[{_CURRENCY}]\ ?)?(?P<inner>[-+])?\Z")

_THIN_SPACE = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_LATEX = (
    (re.compile(r"\\[,;:]|\{,\}"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^ ?(?:\\circ(?![a-zA-Z])|\{\\circ\})"), "°"),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "×"),
    (re.compile(r"\\(?:pm|mp)(?![a-zA-Z])"), "±"),
)
_FRACTION = re.compile(
    r"\\[dtc]?frac ?"
    r"(?:\{ ?(?P<a>[+-]?[\d.,]++) ?\} ?\{ ?(?P<b>[\d.,]++) ?\}|(?P<c>\d)(?P<d>\d))"
)

_BEFORE = 8  # characters that a look to the left sees
_PART_BEFORE = re.compile(
    r"""
    (?:
      [\w)\]}][*+/-] | [\w)\]}%]\ [*/+-]\ ?+   # an operand and an operator: x+5, x - 5; a range: 3-5
      | [×·⋅÷√]\ ?+ | (?:sqrt|log|ln|sin|cos|tan|exp)\ ?+[({]?+\ ?+
      | (?:^|[\s(])[<>≤≥]=?\ ?+                # a bound: < 5
      | [±∓]\ ?+ | [+-]                       # more than one sign
    )\Z
    """,
    re.VERBOSE,
)
_PART_AFTER = re.compile(
    r"""
      \*[\w(\\] | \ \*\ [\w(\\] | \ ?[×·⋅÷√^¢‰] | \(
    | \ ?[+-]\ ?(?:[a-zA-Z](?![a-zA-Z])|[\d(\\])
    | /[a-zA-Z](?![a-zA-Z])
    | \ ?\\(?!text|mathrm|mbox|rm\b|quad|qquad|right|end|degree)[a-zA-Z]
    """,
    re.VERBOSE,
)


def plain_notation(text: str) -> str:
    """Return the text in plain characters, with LaTeX's way of writing numbers replaced.

    Raises:
        InputError: the text is too long.
    """
    text = fold(_THIN_SPACE.sub(",", bounded(text)))
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return _FRACTION.sub(_fraction, text)


def is_part_of_expression(text: str, start: int, end: int) -> bool:
    """Return whether what surrounds ``text[start:end]`` makes it an operand, a bound or an end of a range."""
    before = text[max(0, start - _BEFORE) : start]
    return _PART_BEFORE.search(before) is not None or _PART_AFTER.match(text, end) is not None


def _fraction(match: re.Match[str]) -> str:
    before = " " if match.string[match.start() - 1 : match.start()].isdigit() else ""
    return f"{before}{match['a'] or match['c']}/{match['b'] or match['d']}"
