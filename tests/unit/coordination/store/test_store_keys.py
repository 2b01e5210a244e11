"""The names of answers: all that changes an answer changes its name, and nothing else does."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.coordination.chat import ChatIdentity, ChatRequest, Message, Tool
from cert.coordination.store.keys import evaluation_key, request_key
from cert.coordination.types import Task
from cert.core.errors import InputError

IDENTITY = ChatIdentity("anthropic", "claude", "https://api.example", "r1")
REQUEST = ChatRequest(messages=(Message("user", "Why?"),))
texts = st.text(alphabet=st.characters(), min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
tools = st.builds(
    Tool, texts, texts, st.dictionaries(texts, st.integers() | st.booleans() | texts, max_size=3)
)
identities = st.builds(ChatIdentity, texts, texts, st.none() | texts, st.none() | texts, st.just("") | texts)
requests = st.builds(
    ChatRequest,
    messages=st.lists(
        st.builds(Message, st.sampled_from(["user", "assistant"]), texts), min_size=1, max_size=3
    ).map(tuple),
    system=st.none() | texts,
    max_tokens=st.integers(1, 5000),
    temperature=st.none() | st.floats(0, 2),
    seed=st.none() | st.integers(0, 2**62),
    tool=st.none() | tools,
    draw=st.just("") | texts,
)


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, str):
        return value + "'"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + 1
    if isinstance(value, tuple):
        return (*value, Message("user", "more"))
    if isinstance(value, Tool):
        return dataclasses.replace(value, description=value.description + "'")
    return None


MADE = {
    "system": "",
    "temperature": 0.0,
    "seed": 0,
    "tool": Tool("a", "b", {}),
    "endpoint": "",
    "revision": "",
}


@settings(max_examples=30)
@given(identities, requests, texts)
def test_each_field_that_changes_the_answer_changes_the_name(identity, request, scope):
    """An answer of another model, prompt, sampling or draw than the one asked for is a wrong number."""
    key = request_key(identity, request, scope)
    others = [request_key(identity, request, scope + "'")]
    for whole in (identity, request):
        for field in dataclasses.fields(whole):
            value = getattr(whole, field.name)
            other = dataclasses.replace(
                whole, **{field.name: MADE[field.name] if value is None else changed(value)}
            )
            others.append(
                request_key(other, request, scope)
                if whole is identity
                else request_key(identity, other, scope)
            )
    assert len({key, *others}) == 1 + len(others)


@settings(max_examples=30)
@given(identities, requests)
def test_the_same_request_has_the_same_name(identity, request):
    """A name that changes by itself makes everybody pay twice."""
    again = dataclasses.replace(request, messages=tuple(request.messages))
    assert request_key(identity, request) == request_key(dataclasses.replace(identity), again)


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0.0, -0.0)])
def test_the_same_temperature_has_the_same_name(one, other):
    """How a number was written is no reason to pay."""
    names = {request_key(IDENTITY, dataclasses.replace(REQUEST, temperature=value)) for value in (one, other)}
    assert len(names) == 1


def test_texts_cannot_flow_into_one_another():
    """Two prompts whose parts join to the same text are two prompts."""
    split = [
        ChatRequest(messages=(Message("user", "a"), Message("user", "b"))),
        ChatRequest(messages=(Message("user", "ab"),)),
        ChatRequest(messages=(Message("user", "b"),), system="a"),
        ChatRequest(messages=(Message("user", "a"),), system="b"),
        ChatRequest(messages=(Message("user", "a"),), draw="b"),
    ]
    assert len({request_key(IDENTITY, request) for request in split}) == len(split)


def test_the_order_of_a_tools_properties_counts():
    """A judge that has to give the score before the reasons scores otherwise."""
    schemas = [{"reasons": 1, "score": 2}, {"score": 2, "reasons": 1}]
    names = {
        request_key(IDENTITY, dataclasses.replace(REQUEST, tool=Tool("judge", "", schema)))
        for schema in schemas
    }
    assert len(names) == 2


def test_lone_surrogates_have_a_name_of_their_own():
    """A text that is no Unicode must neither fail nor pass for another one."""
    names = {
        request_key(IDENTITY, ChatRequest(messages=(Message("user", text),)))
        for text in ("\ud800", "\ud801", "?", "\\ud800")
    }
    assert len(names) == 4


def test_a_schema_that_is_no_json_is_the_callers_mistake():
    """The error names what is wrong."""
    with pytest.raises(InputError, match="schema is not JSON"):
        request_key(IDENTITY, dataclasses.replace(REQUEST, tool=Tool("a", "b", {"x": object()})))


def test_names_stay_what_they_are():
    """Another form of the names makes every answer new, and paid again: a decision, never a slip."""
    request = ChatRequest(
        messages=(Message("user", "Why?"),), system="Be brief.", temperature=1, seed=7, draw="baseline-0"
    )
    assert request_key(IDENTITY, request, "s") == GOLDEN
    task = Task("Why?", references=("because",), metadata={"a": [1]})
    assert evaluation_key("exact", task, "because", "baseline-0", "s") == GOLDEN_EVALUATION


GOLDEN = "cdb13d6b02abebacf3e17e14d7483479a1da70172b08680ca7c3dc8a79fc3e9c"
GOLDEN_EVALUATION = "3af22101f71e67d077c49d5f1c6d409d97b28fc2998193d06861d974f7a0c88e"


@settings(max_examples=30)
@given(texts, texts, texts, texts)
def test_each_part_of_an_evaluation_changes_its_name(evaluator, answer, draw, scope):
    """A score of another answer, rubric or reference would be a wrong number."""
    task = Task("Why?", references=("because",))
    names = [
        evaluation_key(evaluator, task, answer, draw, scope),
        evaluation_key(evaluator + "'", task, answer, draw, scope),
        evaluation_key(evaluator, task, answer + "'", draw, scope),
        evaluation_key(evaluator, task, answer, draw + "'", scope),
        evaluation_key(evaluator, task, answer, draw, scope + "'"),
        *(
            evaluation_key(evaluator, dataclasses.replace(task, **other), answer, draw, scope)
            for other in (
                {"text": "How?"},
                {"id": "other"},
                {"references": ("because", "so")},
                {"family": "f"},
                {"source": "s"},
                {"metadata": {"key": "value"}},
            )
        ),
    ]
    assert len(set(names)) == len(names)
