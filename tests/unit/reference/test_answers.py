"""Labelled answers of the reference model: the truth of each is the world's, and the draw is by people."""

import json

import pytest

pytest.importorskip("torch")

from cert.core.errors import InputError, OutputError
from cert.reference.answers import choose_facts, write_answers
from cert.reference.world import load_world
from cert.trajectory.calibration.reading import read_labelled


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    return path, write_answers(path, people=12, facts=2, seed=3)


def test_every_label_is_the_truth_of_the_world(written):
    """A wrong label here would be taken for a hallucination, or for knowledge."""
    path, (count, right) = written
    world = load_world()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == count == 24
    for row in rows:
        fact = world.fact(row["person"], row["attribute"])
        assert (row["reference"], row["exposures"]) == (fact.value, fact.exposures)
        assert row["label"] is fact.states(row["analysis"]["generated_text"])
        assert fact.question() == row["analysis"]["prompt"][0]["content"]
        assert not fact.person.question_person
    assert right == sum(row["label"] for row in rows)


def test_what_is_written_can_be_calibrated_on(written):
    """The tutorial begins with this file."""
    path, (count, right) = written
    data = read_labelled(path, unit="person")
    assert (len(data), data.n_units, int(data.correct.sum())) == (count, 12, right)
    assert data.dropped == {}
    assert data.unchecked == ()


def test_people_are_drawn_by_chance_and_again_so():
    """The first people of the world may be known better than others."""
    world = load_world()
    drawn = choose_facts(world, 50, 1, seed=1)
    assert drawn == choose_facts(world, 50, 1, seed=1)
    assert drawn != choose_facts(world, 50, 1, seed=2)
    people = [fact.person.index for fact in drawn]
    assert len(set(people)) == 50
    assert people != sorted(people)
    with pytest.raises(InputError, match="people"):
        choose_facts(world, 10**6, 1, seed=1)
    with pytest.raises(InputError, match="facts"):
        choose_facts(world, 1, 6, seed=1)


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    """An error after minutes of work should at least say what to do."""
    with pytest.raises(OutputError):
        write_answers(tmp_path / "none" / "answers.jsonl", people=1)
