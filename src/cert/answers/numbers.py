"""Numbers in text: found, read exactly, and compared. What can be read in two ways is not read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from cert.answers.notation import NUMBER, PREFIX, SCALES, is_part_of_expression, plain_notation
from cert.core.errors import ConfigurationError

__all__ = [
    "MAX_DIGITS",
    "MAX_EXPONENT",
    "DecimalMark",
    "Number",
    "find_numbers",
    "parse_number",
    "same_number",
]

MAX_DIGITS = 1000
MAX_EXPONENT = 1000
DecimalMark = Literal[".", ","]


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it stands in a text.

    Attributes:
        value: exact; "50%" is 1/2, "$1.5 million" is 1,500,000. ``None`` where it cannot be read as one
            number for certain: "1,5", "1.234.567", "12/05/2020", "0x1F", "5k", "±3", "2^8", "2π", "x - 5",
            "3-5", "1/0", more than `MAX_DIGITS` digits, or an exponent over `MAX_EXPONENT`.
        text: as written, after folding to plain characters; it reads as the same value.
        percent: whether a percent sign or the word follows.
        currency: the currency sign before or after it, or empty.
        unit: the word after it where the text is this number and that word alone, else empty.
    """

    value: Fraction | None
    text: str
    percent: bool = False
    currency: str = ""
    unit: str = ""


_PLAIN = re.compile(r"\d*\.?\d*")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:(?:,\d{3})++(?:\.\d++)?|(?:_\d{3})++|(?:['’]\d{3})++(?:\.\d++)?)")
# "5k" may be five thousand or five kelvin; "3x" is no number.
_AMBIGUOUS = {"k", "m", "mn", "mm", "b", "bn", "t", "tn", *"xyznijeaπ", "pi"}
_UNIT = re.compile(r"[\W_]*+(?P<unit>[^\W\d_]++)?[\W_]*+\Z")
_NO_WORD = re.compile(r"[\W_]*+\Z")


def find_numbers(text: str, decimal: DecimalMark = ".") -> list[Number]:
    """Return the numbers of a text in order, those that cannot be read included.

    Args:
        text: any text; LaTeX notation of numbers is known.
        decimal: the decimal mark; the other one of point and comma separates thousands.

    Raises:
        InputError: the text is too long.
    """
    text = plain_notation(text)
    matches = list(NUMBER.finditer(text))
    numbers = [_read(text, match, decimal) for match in matches]
    if len(numbers) == 1:
        return [replace(numbers[0], unit=_unit(text, numbers[0], matches[0]))]
    return numbers


def parse_number(text: str, decimal: DecimalMark = ".") -> Number | None:
    """Return the number of a text that has exactly one which can be read, else ``None``."""
    found = find_numbers(text, decimal)
    return found[0] if len(found) == 1 and found[0].value is not None else None


def same_number(a: Fraction, b: Fraction, *, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Return whether |a − b| ≤ max(relative · max(|a|, |b|), absolute), in exact arithmetic.

    Raises:
        ConfigurationError: a tolerance is negative or not finite.
    """
    for name, tolerance in (("relative", relative), ("absolute", absolute)):
        if not (math.isfinite(tolerance) and tolerance >= 0.0):
            raise ConfigurationError(f"the {name} tolerance must be finite and 0 or more, not {tolerance}")
    return abs(a - b) <= max(Fraction(relative) * max(abs(a), abs(b)), Fraction(absolute))


def _read(text: str, match: re.Match[str], decimal: DecimalMark) -> Number:
    prefix = PREFIX.search(text, max(0, match.start() - 5), match.start())
    assert prefix is not None  # it may be empty
    start, sign = _sign(text, prefix)
    before, after = (prefix["currency"] or "").strip(), match["after"] or ""
    value = None if is_part_of_expression(text, start, match.end()) else _value(match, decimal)
    return Number(
        value=-value if value is not None and sign == "-" else value,
        text=sign + before + text[match.start() : match.end()],
        percent=match["percent"] is not None,
        # "$5$" is mathematics, not money.
        currency="" if before == after else before or after,
    )


def _sign(text: str, prefix: re.Match[str]) -> tuple[int, str]:
    """Return where a number begins with what belongs to it, and its sign."""
    start, outer, inner = prefix.start(), prefix["outer"] or "", prefix["inner"] or ""
    if inner:
        # Of two signs the outer one stays before the number, and makes it unreadable or a list's item.
        start = prefix.end("outer") if outer else start
        return (start, inner) if prefix["currency"] else (prefix.start("inner"), inner)
    before = text[start - 1 : start]
    operator = before.isalnum() or (before and before in "_)]}%")
    # A hyphen and a space open an item of a list, unless something asks for a number: "= - 5".
    listed = outer.endswith(" ") and text[max(0, start - 2) : start].strip()[-1:] not in set("=:({[<>,")
    return (prefix.end("outer"), "") if outer and (operator or listed) else (start, outer.strip())


def _unit(text: str, number: Number, match: re.Match[str]) -> str:
    prefix = PREFIX.search(text, max(0, match.start() - 5), match.start())
    assert prefix is not None
    after = _UNIT.match(text, match.start("suffix"))
    alone = _NO_WORD.fullmatch(text, 0, prefix.start()) and after
    return (after["unit"] or "").casefold() if alone and after and number.value is not None else ""


def _value(match: re.Match[str], decimal: DecimalMark) -> Fraction | None:
    suffix = match["suffix"].casefold()
    if any(map(str.isdigit, suffix)) or suffix in _AMBIGUOUS or "_" in suffix:
        return None
    if match["chain"] or match["tower"]:
        return None
    value = _decimal(match["mantissa"], decimal)
    if value is not None and match["over"]:
        value = _quotient(value, match["numerator"], _decimal(match["denominator"], decimal))
    if value is not None and match["power"]:
        value = _scaled(Fraction(1), match["exponent"] or "") if value == 10 else None
    for exponent in (match["e"], match["ten"]):
        if value is not None and exponent is not None:
            value = _scaled(value, exponent)
    if value is None:
        return None
    for word in match["scales"].casefold().split():
        value *= 10 ** SCALES[word.removesuffix("s")]
    return value / 100 if match["percent"] else value


def _decimal(digits: str, decimal: DecimalMark) -> Fraction | None:
    if len(digits) > MAX_DIGITS:
        return None
    if decimal == ",":
        digits = digits.translate(str.maketrans(".,", ",."))
    if _GROUPED.fullmatch(digits):
        digits = re.sub("[,_'’]", "", digits)
    return Fraction(digits) if _PLAIN.fullmatch(digits) else None


def _quotient(value: Fraction, numerator: str | None, denominator: Fraction | None) -> Fraction | None:
    if not denominator:
        return None
    if numerator is None:
        return value / denominator
    # A mixed number: a whole one and a proper fraction.
    if len(numerator) > MAX_DIGITS or value.denominator != 1 or int(numerator) >= denominator:
        return None
    return value + int(numerator) / denominator


def _scaled(value: Fraction, exponent: str) -> Fraction | None:
    if not exponent or len(exponent) > len(str(MAX_EXPONENT)) + 1:
        return None
    power = int(exponent)
    return value * Fraction(10) ** power if abs(power) <= MAX_EXPONENT else None
