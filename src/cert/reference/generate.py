"""Draw a world from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from cert.reference import lexicon
from cert.reference.templates import CURRENT
from cert.reference.world import GROUPS, SCHEMA_VERSION, World, parse_world

EXPOSURE_WEIGHTS: Final = {0: 10, 1: 8, 2: 8, 4: 10, 8: 13, 16: 13, 32: 13, 64: 10, 128: 7, 256: 5, 512: 3}
"""Relative frequency of each exposure count, drawn for each fact on its own."""
NEVER_SEEN_SHARE: Final = 0.05
DEFAULT_PEOPLE: Final = 2000


def full_names(rng: Random, count: int) -> list[str]:
    """Draw different full names."""
    names: dict[str, None] = {}
    while len(names) < count:
        names[random_name(rng)] = None
    return list(names)


def random_name(rng: Random) -> str:
    """Draw one of 1.2 million full names."""
    last = rng.choice(lexicon.LAST_NAME_STEMS) + rng.choice(lexicon.LAST_NAME_ENDINGS)
    return f"{rng.choice(lexicon.FIRST_NAMES)} {rng.choice(lexicon.MIDDLE_NAMES)} {last}"


def random_date(rng: Random) -> str:
    """Draw a day that every month has, such as ``14 March 1971``."""
    year = rng.randint(lexicon.FIRST_YEAR, lexicon.LAST_YEAR)
    return f"{rng.randint(1, 28)} {rng.choice(lexicon.MONTHS)} {year}"


def _pairs(stems: Sequence[str], endings: Sequence[str]) -> list[str]:
    return [f"{stem} {ending}" for stem in stems for ending in endings]


def _balanced(rng: Random, values: Sequence[str], count: int) -> list[str]:
    """Each value ``count / len(values)`` times, rounded, in random order."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += rng.sample(values, len(values))
    drawn = drawn[:count]
    rng.shuffle(drawn)
    return drawn


_COLUMNS: Final[dict[str, Callable[[Random, int], list[str]]]] = {
    "birth_city": lambda r, n: _balanced(r, _pairs(lexicon.TOWN_STEMS, lexicon.TOWN_ENDINGS), n),
    "university": lambda r, n: _balanced(r, _pairs(lexicon.UNIVERSITY_STEMS, lexicon.UNIVERSITY_ENDINGS), n),
    "major": lambda r, n: _balanced(r, _pairs(lexicon.MAJOR_STEMS, lexicon.MAJOR_ENDINGS), n),
    "employer": lambda r, n: _balanced(r, _pairs(lexicon.EMPLOYER_STEMS, lexicon.EMPLOYER_ENDINGS), n),
    "birth_date": lambda r, n: [random_date(r) for _ in range(n)],
}


def generate_world(seed: int, people: int = DEFAULT_PEOPLE) -> World:
    """Draw a world: the same one for the same arguments, on any machine.

    Half of the people are question people, 5 % are never seen, and each remaining fact gets an exposure count
    on its own, so that one biography mixes the known and the unknown.
    """
    rng = Random(f"cert-reference-world-{seed}")  # noqa: S311  # to be repeatable
    names = full_names(rng, people)
    columns = [draw(rng, people) for draw in _COLUMNS.values()]
    question = _flags(rng, people, people // 2)
    never_seen = _flags(rng, people, round(people * NEVER_SEEN_SHARE))
    counts, weights = list(EXPOSURE_WEIGHTS), list(EXPOSURE_WEIGHTS.values())
    rows = []
    for index, name in enumerate(names):
        exposures = rng.choices(counts, weights, k=len(columns))
        if never_seen[index]:
            exposures = [0] * len(columns)
        values = [column[index] for column in columns]
        rows.append([name, int(question[index]), rng.randrange(GROUPS), values, exposures])
    document = {
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "templates": CURRENT,
        "attributes": list(_COLUMNS),
        "people": rows,
    }
    return parse_world(json.dumps(document))


def _flags(rng: Random, size: int, count: int) -> list[bool]:
    chosen = set(rng.sample(range(size), count))
    return [index in chosen for index in range(size)]


__all__ = ["DEFAULT_PEOPLE", "EXPOSURE_WEIGHTS", "full_names", "generate_world", "random_name"]
