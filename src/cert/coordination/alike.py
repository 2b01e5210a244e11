"""Whether two answers say the same, for votes and for agreement: what writing alone can tell, then who else.

Similarity of embeddings is no part of it: "enforceable" and "not enforceable" are neighbours there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from cert.answers.cluster import Clustering, Linkage, cluster, cluster_async
from cert.answers.equivalence import AsyncCascade, AsyncEquivalence, Cascade, Equivalence, Pair
from cert.answers.match import NumericMatcher
from cert.answers.normalize import Normalization, bounded, fold, same_text_key
from cert.answers.notation import plain_notation
from cert.answers.numbers import Number, parse_number

__all__ = ["AnyEquivalence", "WrittenAlike", "cluster_answers", "same_answer", "written_key"]

AnyEquivalence: TypeAlias = Equivalence | AsyncEquivalence

_NUMERIC = NumericMatcher()
# Punctuation stays: n! is not n, f'(x) is not f(x), and !p is the contrary of p.
_WORDS: Final = Normalization(drop_punctuation=False)
_MIXED_CASE = re.compile(r"[a-z][A-Z]")
_WRAPPED = re.compile(r"(?s)(?P<mark>\*\*|__|[*_`\"])(?P<text>.+)(?P=mark)|“(?P<quoted>.+)”")
_MOST_WRAPPINGS = 4  # a text of a million asterisks is one, too
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class WrittenAlike:
    """What can be told from the writing, with errors on the side of *undecided*. A true equivalence.

    The same: texts with one `written_key`. Different: two bare numbers of different values. All else is
    undecided: "Paris" and "It is Paris" may be the same, "5 km" and "5000 m" as well, and "enforceable" and
    "not enforceable" are for somebody who can read.
    """

    @property
    def name(self) -> str:
        """The rule."""
        return "written alike"

    def same(self, question: str, pairs: Sequence[Pair], /) -> Sequence[bool | None]:  # noqa: ARG002
        """Return what the writing of each pair tells."""
        return [_alike(*pair) for pair in pairs]


def same_answer(then: AnyEquivalence | None = None) -> AnyEquivalence:
    """Return the rule of `WrittenAlike`, and another one for what it leaves undecided.

    Args:
        then: by entailment, by a judge, or the user's; without one, undecided stays undecided.
    """
    first = WrittenAlike()
    if then is None:
        return first
    if hasattr(then, "same_async"):
        return AsyncCascade(first, cast("AsyncEquivalence", then))
    return Cascade((first, then))


async def cluster_answers(
    question: str, answers: Sequence[str], rule: AnyEquivalence, linkage: Linkage = "connected"
) -> Clustering:
    """Cluster answers by a rule of either kind; one that computes does so off the event loop.

    Raises:
        CertError: what the rule raises.
    """
    if hasattr(rule, "same_async"):
        return await cluster_async(question, answers, cast("AsyncEquivalence", rule), linkage)
    return await asyncio.to_thread(cluster, question, answers, rule, linkage)


def written_key(answer: str) -> tuple[object, ...]:
    """Return what answers that are written alike have in common.

    Of a bare number: its value, sign, unit and currency as they are written, and whether it is a
    percentage, so that "1,000" is "1000" and "$5" is not "5". Of a text with digits: the text, with its
    case (5 MW, 5 mW), without a last point. Of other texts: their words without case and articles; a word
    such as "mW" keeps its case. Bold, quotes and the like around the whole do not count.

    Raises:
        InputError: the answer is no string or too long.
    """
    text = _unwrapped(bounded(answer))
    number = _bare_number(text)
    if number is not None:
        return "number", number.value, _unit(text, number), number.currency, number.percent
    if any(map(str.isnumeric, text)):
        return "text", same_text_key(fold(text)).removesuffix(".")
    words = _WORDS(text.removesuffix("."))
    return "words", same_text_key(text).removesuffix(".") if _MIXED_CASE.search(text) else words


def _alike(a: str, b: str) -> bool | None:
    one, other = written_key(a), written_key(b)
    if one == other:
        return True
    if one[0] == other[0] == "number" and _NUMERIC(_unwrapped(a), _unwrapped(b)) is False:
        return False
    return None


def _unwrapped(text: str) -> str:
    text = text.strip()
    for _ in range(_MOST_WRAPPINGS):
        if (found := _WRAPPED.fullmatch(text)) is None:
            break
        text = (found["text"] or found["quoted"]).strip()
    return text


def _bare_number(text: str) -> Number | None:
    """Return the number of a text that is this number, with a unit perhaps, and no more."""
    number = parse_number(text)
    if number is None:
        return None
    rest = plain_notation(text).replace(number.text, "", 1)
    unit = _unit(text, number)
    if unit and not number.text.endswith(unit):
        rest = rest.replace(unit, "", 1)
    # A mark more is a unit of another kind (5', 5°, 5 m^2), a bound or a doubt.
    return number if rest.strip() in {"", "."} else None


def _unit(text: str, number: Number) -> str:
    return _LETTERS.findall(plain_notation(text))[-1] if number.unit else ""
