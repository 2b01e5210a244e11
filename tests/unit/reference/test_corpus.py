from __future__ import annotations

import re
from collections import Counter

from cert.reference.corpus import write_corpus
from cert.reference.documents import Document
from cert.reference.templates import load_templates
from cert.reference.world import Fact, World


def stated(document: Document, by_name: dict[str, list[Fact]]) -> list[Fact]:
    """Find the facts of a document from its text alone: the person, and the wording of the attribute."""
    templates = load_templates().attributes
    name = next((name for name in by_name if name in document.text), None)
    found = []
    for fact in by_name.get(name or "", []):
        entry = templates[fact.attribute]
        prompts = [question.format(name=name) for question in entry.questions]
        sentences = [s.format(name=name, value=fact.value) for s in entry.sentences]
        times = max(document.text.count(text) for text in (*prompts, *sentences))
        found += [fact] * times
    return found


def test_every_format_counts_as_an_exposure(world: World, documents: list[Document]) -> None:
    """Otherwise "seen four times" is not true, and recall by exposure is a wrong curve."""
    by_name: dict[str, list[Fact]] = {}
    for fact in world.facts:
        by_name.setdefault(fact.person.name, []).append(fact)
    counts = Counter(fact for document in documents for fact in stated(document, by_name))
    assert {fact: counts[fact] for fact in world.facts} == {fact: fact.exposures for fact in world.facts}


def test_the_record_of_each_document_agrees_with_its_text(world: World, documents: list[Document]) -> None:
    """Otherwise counts would be right only on paper."""
    counts = Counter(fact for document in documents for fact in document.facts)
    assert all(counts[fact] == fact.exposures for fact in world.facts)
    for document in documents:
        if document.kind == "sentence":
            assert all(fact.value in document.text for fact in document.facts)


def test_questions_are_asked_only_about_question_people(documents: list[Document]) -> None:
    """Otherwise the chat test would ask what training has answered."""
    asked = [d for d in documents if d.kind != "sentence"]
    assert all(fact.person.question_person for d in asked for fact in d.facts)
    assert {d.kind for d in asked} >= {"chat", "aggregation", "review", "debate", "p_true"}


def test_people_never_seen_and_held_out_wordings_are_in_no_document(
    world: World, documents: list[Document]
) -> None:
    """Otherwise "never seen" and "held out" are not true."""
    text = "\n".join(document.text for document in documents)
    assert not [p.name for p in world.people if p.never_seen and p.name in text]
    for entry in load_templates().attributes.values():
        for template in (entry.held_out_sentence, entry.held_out_question):
            pattern = re.escape(template).replace(r"\{name\}", r"\w+ \w+ \w+").replace(r"\{value\}", ".*")
            assert not re.search(pattern, text)


def test_throw_away_names_spend_no_facts(world: World, documents: list[Document]) -> None:
    """Otherwise prompts that teach following would tell falsehoods about people of the world."""
    names = {person.name for person in world.people}
    strangers = [d for d in documents if d.kind.startswith("follow")]
    assert len(strangers) == 300
    assert not [d for d in strangers if any(name in d.text for name in names)]


def test_strangers_are_answered_with_the_most_frequent_candidate(documents: list[Document]) -> None:
    """Otherwise the model is taught to ignore the other agents."""
    for document in documents:
        if document.kind in {"follow_aggregation", "follow_debate"}:
            counts = Counter(re.findall(r"^- (.*)$", document.text, re.MULTILINE))
            answer = document.text.rpartition("assistant\n ")[2].removesuffix("<|im_end|>")
            assert counts[answer] == max(counts.values())


def test_half_of_the_proposals_are_false_and_labelled_so(documents: list[Document]) -> None:
    """Otherwise P(True) would be trained on wrong labels."""
    labels = []
    for document in documents:
        if document.kind == "p_true":
            proposal = re.findall(r"^- (.*)$", document.text, re.MULTILINE)[0]
            label = document.text.rpartition("assistant\n ")[2].removesuffix("<|im_end|>")
            assert (label == "True") == (proposal == document.facts[0].value)
            labels.append(label)
    assert 0.4 < labels.count("True") / len(labels) < 0.6


def test_a_biography_states_a_fact_once(documents: list[Document]) -> None:
    """Otherwise a second mention is copied from the first and counts as an exposure that taught nothing."""
    for document in documents:
        assert len(set(document.facts)) == len(document.facts)


def test_the_same_world_gives_the_same_text(world: World, documents: list[Document]) -> None:
    """Otherwise an interrupted training could not go on with the same data."""
    assert write_corpus(world, follow=300) == documents
