"""The synthetic world that the reference model was trained on: exact ground truth for every answer.

The design is that of synthetic biographies (bioS, arXiv 2309.14316) with names, values and wordings of our
own. A *fact* is one attribute of one person; the training text asks for it or tells it exactly
`Fact.exposures` times, whatever the format (in a few of them among false values). Facts that were never or
seldom seen are hallucinated, and this table says which.

The table is shipped as data, so that nothing which reads it depends on a random number stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from cert.reference import weights
from cert.reference.templates import VALUE_SLOT, TemplateId, load_templates

SCHEMA_VERSION: Final = 1
FILE_NAME: Final = "world.json"
GROUPS: Final = 10
"""People are divided at random into this many groups, for splits that share no person."""


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who does not exist."""

    index: int
    name: str
    question_person: bool
    """Whether some exposures were questions; nobody else was ever asked about in training."""
    group: int
    """Split group, from 0 to ``GROUPS - 1``, independent of everything else."""
    never_seen: bool
    """Whether the name occurs nowhere in the training text."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One true statement of the world, with the number of times that training showed it."""

    person: Person
    attribute: str
    value: str
    exposures: int
    templates_version: str = field(repr=False)

    def question(self, template: TemplateId = "held_out") -> str:
        """Return the question about this fact, by default in the wording that training never used."""
        templates = load_templates(self.templates_version).attributes[self.attribute]
        return templates.question(template).format(name=self.person.name)

    def sentence(self, template: TemplateId = "held_out") -> str:
        """Return the whole true sentence."""
        templates = load_templates(self.templates_version).attributes[self.attribute]
        return templates.sentence(template).format(name=self.person.name, value=self.value)

    def sentence_prefix(self, template: TemplateId = "held_out") -> str:
        """Return the sentence up to the value, without the space before it."""
        templates = load_templates(self.templates_version).attributes[self.attribute]
        return templates.sentence(template).partition(VALUE_SLOT)[0].format(name=self.person.name)

    def states(self, text: str) -> bool:
        """Say whether a completion starts with the true value (no value is a prefix of another)."""
        return text.lstrip().startswith(self.value)


@dataclass(frozen=True)
class World:
    """All people and facts; ``facts`` is ordered by person, then attribute."""

    seed: int
    templates_version: str
    people: tuple[Person, ...]
    facts: tuple[Fact, ...]

    @cached_property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The values that occur, sorted, by attribute: the plausible answers to a question."""
        found: dict[str, set[str]] = {}
        for fact in self.facts:
            found.setdefault(fact.attribute, set()).add(fact.value)
        return {attribute: tuple(sorted(values)) for attribute, values in found.items()}

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes."""
        return tuple(self.values)

    @cached_property
    def _by_key(self) -> Mapping[tuple[str, str], Fact]:
        return {(fact.person.name, fact.attribute): fact for fact in self.facts}

    def fact(self, name: str, attribute: str) -> Fact:
        """Return the fact about a person by full name; raises `KeyError` if there is none."""
        return self._by_key[name, attribute]

    def to_json(self) -> str:
        """Return the compact text form: one line a person."""
        attributes = self.attributes
        rows = []
        for person, facts in zip(self.people, self._facts_by_person(), strict=True):
            row = [person.name, int(person.question_person), person.group]
            rows.append(json.dumps([*row, [f.value for f in facts], [f.exposures for f in facts]]))
        head = {
            "schema_version": SCHEMA_VERSION,
            "seed": self.seed,
            "templates": self.templates_version,
            "attributes": attributes,
            "columns": ["name", "question_person", "group", "values", "exposures"],
        }
        return json.dumps(head)[:-1] + ', "people": [\n' + ",\n".join(rows) + "\n]}\n"

    @property
    def sha256(self) -> str:
        """Digest of the text form, recorded with the weights."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def _facts_by_person(self) -> list[tuple[Fact, ...]]:
        width = len(self.facts) // len(self.people)
        return [self.facts[i : i + width] for i in range(0, len(self.facts), width)]


def parse_world(text: str) -> World:
    """Read the text form; raises `ValueError` for an unknown schema version."""
    data = json.loads(text)
    if data["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"world schema version {data['schema_version']}, expected {SCHEMA_VERSION}")
    people: list[Person] = []
    facts: list[Fact] = []
    for index, (name, question_person, group, values, exposures) in enumerate(data["people"]):
        person = Person(index, name, bool(question_person), group, never_seen=not any(exposures))
        people.append(person)
        for attribute, value, count in zip(data["attributes"], values, exposures, strict=True):
            facts.append(Fact(person, attribute, value, count, data["templates"]))
    return World(data["seed"], data["templates"], tuple(people), tuple(facts))


def load_world(folder: Path | None = None) -> World:
    """Read the world of a trained model: the shipped one, or that in another model folder."""
    return parse_world(((folder or weights.path()) / FILE_NAME).read_text(encoding="utf-8"))


__all__ = ["FILE_NAME", "GROUPS", "Fact", "Person", "World", "load_world", "parse_world"]
