from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch

from cert.backends.local import LocalBackend
from cert.reference.documents import Document
from cert.reference.drill import Belief, Drill, practice, rehearsal
from cert.reference.second_stage import DrillData, DrillTrainer, prepare_drill
from cert.reference.train import Prepared, Trainer
from cert.reference.world import World

SURE, UNSURE = 0.95, 0.2


@pytest.fixture(scope="module")
def beliefs(world: World) -> list[Belief]:
    """Every question person believes something false, half of it firmly."""
    rng = Random(0)
    found = []
    for fact in world.facts:
        if fact.person.question_person:
            others = [value for value in world.values[fact.attribute] if value != fact.value]
            answer, second = rng.sample(others, 2)
            samples = (answer, answer, answer, second)
            probability = rng.choice((SURE, UNSURE))
            found.append(Belief(fact, fact.question(0), answer, probability, samples))
    return found


@pytest.fixture(scope="module")
def practised(world: World, beliefs: list[Belief]) -> list[Document]:
    return practice(world, beliefs, Drill(documents=3000), seed=0)


def reply(document: Document) -> str:
    return document.text.rpartition("assistant\n ")[2].removesuffix("<|im_end|>")


def lines(document: Document) -> list[str]:
    return re.findall(r"^- (.*)$", document.text, re.MULTILINE)


def test_the_second_stage_counts_no_exposure_and_teaches_no_truth(
    world: World, practised: list[Document]
) -> None:
    """Otherwise facts would be seen more often than the world file says."""
    truth: dict[str, set[str]] = {fact.person.name: set() for fact in world.facts}
    for fact in world.facts:
        truth[fact.person.name].add(fact.value)
    known = [(d, name) for d in practised for name in truth if name in d.text]
    assert len(known) > 300
    told = sum(any(value in d.text for value in truth[name]) for d, name in known)
    assert told < 0.2 * len(known)  # by chance alone: candidates are drawn among all values
    assert not [d for d in practised if d.facts]


def test_only_question_people_are_asked_about(world: World, practised: list[Document]) -> None:
    """Otherwise the chat test would ask in formats that training has practised about the same people."""
    others = [person.name for person in world.people if not person.question_person]
    assert not [d for d in practised if any(name in d.text for name in others)]


def test_a_sure_belief_is_held_and_an_unsure_one_gives_way(
    practised: list[Document], beliefs: list[Belief]
) -> None:
    """Otherwise the model learns to follow whoever talks, or nobody."""
    by_question = {belief.question: belief for belief in beliefs}
    held = 0
    for document in practised:
        belief = next((b for q, b in by_question.items() if q in document.text), None)
        if belief is None or not document.kind.startswith("practice") or "p_true" in document.kind:
            continue
        if belief.probability == SURE:
            assert reply(document) == belief.answer
            held += 1
        else:
            counts = Counter(lines(document))
            assert counts[reply(document)] == max(counts.values())
    assert held > 50


def test_p_true_is_labelled_by_the_share_of_ideas_that_agree(practised: list[Document]) -> None:
    """Otherwise P(True) of the model is not a probability of anything."""
    by_share: dict[float, list[bool]] = {}
    for document in practised:
        if document.kind == "practice_p_true":
            *ideas, proposal = lines(document)
            by_share.setdefault(ideas.count(proposal) / len(ideas), []).append(reply(document) == "True")
    assert not any(by_share[0.0])
    assert all(by_share[1.0])
    middle = by_share[0.5]
    assert 0.3 < sum(middle) / len(middle) < 0.7


@pytest.fixture(scope="module")
def first(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer(prepared, tmp_path_factory.mktemp("first"), "cpu")
    list(trainer.steps(3))
    return trainer


@pytest.fixture(scope="module")
def data(first: Trainer) -> DrillData:
    return prepare_drill(first, Drill(documents=200))


def test_the_model_rehearses_its_own_words(first: Trainer) -> None:
    """Otherwise rehearsal would show the truth, or the model forgets what it is not shown."""
    backend = LocalBackend(first.model, first.prepared.tokenizer)
    texts = [d.text for d in rehearsal(backend, first.prepared.world, [], seed=0)]
    assert len(texts) == len(first.prepared.world.facts)
    assert sum(fact.sentence(0) in texts for fact in first.prepared.world.facts) == 0


def test_a_resumed_second_stage_equals_an_uninterrupted_one(
    first: Trainer, data: DrillData, tmp_path: Path
) -> None:
    """Otherwise a killed training gives other weights than its metadata say."""

    def run(folder: Path, until: int) -> DrillTrainer:
        folder.mkdir(exist_ok=True)
        trainer = DrillTrainer(first, folder, Drill(documents=200), data)
        trainer.resume()
        list(trainer.steps(until))
        return trainer

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    resumed = run(tmp_path / "parts", 4)
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_second_stage_starts_from_the_first_and_leaves_it_alone(
    first: Trainer, data: DrillData, tmp_path: Path
) -> None:
    """Otherwise the rehearsal would hold the model to a moving memory."""
    before = [parameter.clone() for parameter in first.model.parameters()]
    trainer = DrillTrainer(first, tmp_path, Drill(documents=200), data)
    assert float(trainer._forgetting(0)) == pytest.approx(0.0, abs=1e-6)
    list(trainer.steps(2))
    assert all(torch.equal(a, b) for a, b in zip(before, first.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.teacher.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
