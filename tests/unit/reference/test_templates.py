from __future__ import annotations

from itertools import permutations

import pytest

from cert.reference.templates import VALUE_SLOT, load_templates

TEMPLATES = load_templates()
NAME = "Ada Blanche Ashham"


def rendered() -> list[str]:
    """Every prompt that a model can be given, up to where the answer begins."""
    texts = []
    for entry in TEMPLATES.attributes.values():
        sentences = (*entry.sentences, entry.held_out_sentence)
        texts += [sentence.partition(VALUE_SLOT)[0].format(name=NAME) for sentence in sentences]
        texts += [q.format(name=NAME) for q in (*entry.questions, entry.held_out_question)]
    question = "Where was Ada Blanche Ashham born?"
    texts.append(TEMPLATES.aggregation(question, ["Amber Bay", "Birch Gate"]))
    texts.append(TEMPLATES.review(question, "Amber Bay"))
    texts.append(TEMPLATES.debate(question, "Amber Bay", ["Birch Gate", "Birch Gate"]))
    texts.append(TEMPLATES.p_true(question, "Amber Bay"))
    return texts


def test_no_template_is_a_prefix_of_another() -> None:
    """Otherwise the model cannot know which of two questions it was asked when it has to answer."""
    assert not [(a, b) for a, b in permutations(rendered(), 2) if b.startswith(a)]


def test_every_attribute_has_eight_and_six_wordings_and_one_of_each_held_out() -> None:
    """Otherwise held-out wordings would test memory of one wording instead of knowledge."""
    for entry in TEMPLATES.attributes.values():
        assert (len(entry.sentences), len(entry.questions)) == (8, 6)
        assert entry.held_out_sentence not in entry.sentences
        assert entry.held_out_question not in entry.questions
        for sentence in (*entry.sentences, entry.held_out_sentence):
            assert sentence.count("{name}") == 1
            assert sentence.endswith(f"{VALUE_SLOT}.")


def test_the_coordination_prompts_read_as_they_were_frozen() -> None:
    """Otherwise a harmless-looking edit puts the weights in front of prompts they never saw."""
    question = "Where was Ada Blanche Ashham born?"
    assert TEMPLATES.vote(question) == question
    assert TEMPLATES.aggregation(question, ["Amber Bay", " Birch Gate "]) == (
        "Several agents answered the question: Where was Ada Blanche Ashham born?\n"
        "Their answers:\n- Amber Bay\n- Birch Gate\nReply with the best final answer only."
    )
    assert TEMPLATES.debate(question, "Amber Bay", ["Birch Gate"]) == (
        "You are debating the question: Where was Ada Blanche Ashham born?\n"
        "Your previous answer:\n- Amber Bay\nAnswers of the other agents:\n- Birch Gate\n"
        "Reply with your updated answer only."
    )
    assert TEMPLATES.review(question, "Amber Bay").splitlines()[1:3] == ["Draft answer:", "- Amber Bay"]
    assert TEMPLATES.p_true(question, "Amber Bay").endswith("Is the proposed answer True or False?")


def test_a_question_with_braces_is_taken_as_it_is() -> None:
    """Otherwise a question about code would crash the coordination monitor or lose its braces."""
    assert "f({x})" in TEMPLATES.aggregation("What does f({x}) print?", ["{y}"])
    assert "- {y}" in TEMPLATES.aggregation("What does f({x}) print?", ["{y}"])


def test_an_unknown_version_is_refused() -> None:
    """Otherwise weights of a later version would be asked in the wrong words."""
    with pytest.raises(FileNotFoundError):
        load_templates("v0")
