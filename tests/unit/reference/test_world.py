from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.reference.generate import EXPOSURE_WEIGHTS, generate_world
from cert.reference.world import FILE_NAME, GROUPS, Fact, World, load_world, parse_world

SEEDS = st.integers(min_value=0, max_value=10_000)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_the_same_seed_gives_the_same_world(seed: int) -> None:
    """Otherwise nobody can train the same model twice."""
    assert generate_world(seed, 60).to_json() == generate_world(seed, 60).to_json()


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, people=st.integers(min_value=40, max_value=120))
def test_the_groups_of_people_have_their_sizes(seed: int, people: int) -> None:
    """Otherwise a test on people never asked about, or never seen, has nobody to ask about."""
    world = generate_world(seed, people)
    assert len({person.name for person in world.people}) == people
    assert sum(person.question_person for person in world.people) == people // 2
    assert sum(person.never_seen for person in world.people) >= round(people * 0.05)
    assert {person.group for person in world.people} <= set(range(GROUPS))
    assert {fact.exposures for fact in world.facts} <= set(EXPOSURE_WEIGHTS)


def test_someone_is_never_seen_exactly_if_no_fact_about_them_was_shown(world: World) -> None:
    """Otherwise people who inflate AUROC are not kept apart."""
    shown = {fact.person for fact in world.facts if fact.exposures}
    assert {person for person in world.people if not person.never_seen} == shown


def test_one_biography_mixes_the_known_and_the_unknown(world: World) -> None:
    """Otherwise a monitor could tell errors by the person alone, whatever the model knows."""
    counts: dict[str, set[int]] = {}
    for fact in world.facts:
        counts.setdefault(fact.person.name, set()).add(fact.exposures)
    seen = [c for c in counts.values() if c != {0}]
    assert sum(len(c) > 1 for c in seen) > 0.9 * len(seen)


def test_values_are_many_and_nearly_equally_frequent() -> None:
    """Otherwise a guess is right too often and recall at exposure 0 means nothing."""
    world = generate_world(0)
    for attribute in world.attributes:
        counts = Counter(fact.value for fact in world.facts if fact.attribute == attribute)
        assert len(counts) >= 40
        assert max(counts.values()) <= 0.025 * len(world.people)


def test_no_value_is_a_prefix_of_another() -> None:
    """Otherwise a wrong answer that starts like the truth would count as right."""
    values = sorted({fact.value for fact in generate_world(0).facts})
    assert not [a for a, b in pairwise(values) if b.startswith(a) and a != b]
    assert all(re.fullmatch(r"[A-Za-z0-9 ]+", value) for value in values)


def test_a_world_survives_being_written_and_read(world: World, tmp_path: Path) -> None:
    """Otherwise an evaluation would judge by another truth than the training told."""
    (tmp_path / FILE_NAME).write_text(world.to_json(), encoding="utf-8")
    again = load_world(tmp_path)
    assert (again.people, again.facts, again.sha256) == (world.people, world.facts, world.sha256)


def test_a_world_of_an_unknown_schema_is_refused(world: World) -> None:
    """Otherwise a newer file would be read wrongly without a word."""
    data = {**json.loads(world.to_json()), "schema_version": 99}
    with pytest.raises(ValueError, match="schema version 99"):
        parse_world(json.dumps(data))


def test_a_fact_writes_its_own_questions_and_sentences(world: World) -> None:
    """Otherwise every later user would build prompts of their own, which the model never saw."""
    fact = world.fact(world.people[0].name, "birth_city")
    name = world.people[0].name
    assert fact.question(0) == f"Where was {name} born?"
    assert fact.sentence_prefix(0) == f"{name} was born in"
    assert fact.sentence(0) == f"{name} was born in {fact.value}."
    assert fact.question() not in {fact.question(i) for i in range(6)}
    assert fact.sentence() not in {fact.sentence(i) for i in range(8)}


@pytest.mark.parametrize(
    ("text", "right"), [(" {v}.", True), ("{v}", True), (" {v}, and more", True), (" Nowhere {v}", False)]
)
def test_an_answer_is_right_if_it_starts_with_the_value(world: World, text: str, right: bool) -> None:
    """Otherwise recall would count answers that never state the fact, or miss those that do."""
    fact: Fact = world.facts[0]
    assert fact.states(text.replace("{v}", fact.value)) is right
