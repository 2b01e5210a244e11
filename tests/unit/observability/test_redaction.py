"""What goes into a log: never a prompt, an output or a key, and never a line that is not one."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cert.observability.redaction import REDACTED, Redaction, one_line, without_keys

redact = Redaction()

KEYS = {
    "anthropic": "sk-ant-api03-Abc_def-0123456789",
    "openai": "sk-proj-abcdefghijklmnop0123",
    "hugging face": "hf_abcdefghijklmnopqrst",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "slack": "xoxb-123456789012-abcdef",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIzaSyA-abcdefghijklmnopqrstuvwxyz01234",
    "json web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_taken_out_wherever_it_stands(kind):
    """Somebody who reads the logs could otherwise use the key."""
    key = KEYS[kind]
    for text in (key, f"failed with {key}.", f"'{key}'", f'{{"k":"{key}"}}', f"({key})"):
        clean = redact({"event": text, "deep": [{"note": text}]})
        assert key not in json.dumps(clean)
        assert REDACTED in clean["event"]
        assert REDACTED in clean["deep"][0]["note"]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA"),
        ("redis://default:hunter22@cache:6379/0 refused", "hunter22"),
        ("redis://:hun/ter@22@cache:6379/0", "ter"),
        ("https://hunter22@example.org/x", "hunter22"),
        ("api_key=hunter22 x=1", "hunter22"),
        ("{'x-api-key': 'hunter22'}", "hunter22"),
        ('{"password": "hunter two two"}', "hunter two two"),
        ("access_token=hunter22&scope=all", "hunter22"),
    ],
)
def test_what_is_named_a_secret_in_a_text_is_taken_out(text, secret):
    """Messages of libraries quote headers, addresses and settings with passwords in them."""
    assert secret not in without_keys(text)


@pytest.mark.parametrize(
    "name",
    ["prompt", "system_prompt", "userPrompt", "output", "response", "messages", "content", "text", "task",
     "generated_text", "tokens", "transcript", "answer"],
)  # fmt: skip
def test_a_field_that_holds_content_says_only_that_it_was_there(name):
    """What users ask and models answer is not for the operators' logs."""
    for value in ("the patient's name", ["the patient's name"], {"a": "the patient's name"}):
        assert "patient" not in json.dumps(redact({name: value}))
        assert "patient" not in json.dumps(redact({"request": {name: value}}))


@pytest.mark.parametrize(
    "name",
    ["api_key", "apiKey", "ANTHROPIC_API_KEY", "X-Api-Key", "password", "db_password", "passwd", "secret",
     "client_secret", "authorization", "access_token", "token", "cookie", "private_key", "credentials"],
)  # fmt: skip
def test_a_field_that_holds_a_secret_loses_its_value(name):
    """A short or unusual key has no shape to be known by, only its name."""
    for value in ("abc", 1234, b"abc", ["abc"], {"value": "abc"}):
        assert redact({name: value}) == {name: REDACTED}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens": 12, "output_tokens": 3, "tokens": 7, "output": 3},
        {"token_count": 5, "cache_key": "a1", "message": "it failed", "code": "prompt_too_long"},
        {"operation": "judge", "model": "org/name", "url": "http://localhost:8000/v1", "has_prompt": True},
    ],
)
def test_numbers_and_names_stay_readable(fields):
    """Counts, codes and names are what logs are for; redacting them blinds the operator."""
    assert redact(fields) == fields


def test_a_program_can_name_further_fields():
    """Every organisation has a field of its own that must not be in the logs."""
    clean = Redaction(["patient_id"])({"Patient_ID": 7, "nested": {"patient_id": "x"}})
    assert clean == {"Patient_ID": REDACTED, "nested": {"patient_id": REDACTED}}


@dataclass
class Request:
    prompt: str
    size: int


class Chatty:
    def __repr__(self) -> str:
        return "Chatty(prompt='the secret plan')"


def test_an_objects_own_text_is_not_trusted():
    """The repr of a request object holds the whole prompt."""
    clean = redact({"a": Request("the secret plan", 3), "b": Chatty(), "c": b"the secret plan", "d": Chatty})
    assert "secret plan" not in json.dumps(clean)
    assert clean["a"]["size"] == 3


def test_odd_values_become_plain_json():
    """A NaN, a path or a cycle in a log call must neither break the line nor the work."""
    cycle: list[object] = []
    cycle.append(cycle)

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    clean = redact(
        {"nan": float("nan"), "path": Path("a/b"), "cycle": cycle, 3: {1, 2}, "bad": BrokenError()}
    )
    assert json.loads(json.dumps(clean, allow_nan=False)) == clean
    assert clean["path"] == "a/b"
    assert clean["nan"] == "nan"
    assert "Broken" in clean["bad"]


def test_long_values_are_cut():
    """One value of a hundred megabytes would rotate all other lines away."""
    started = time.thread_time()
    clean = redact(
        {"note": "x" * 50_000_000, "many": list(range(1_000_000)), "keys": {i: i for i in range(999)}}
    )
    assert len(json.dumps(clean)) < 20_000
    assert "50000000" in clean["note"]
    assert time.thread_time() - started < 2


def test_a_key_at_the_cut_does_not_show_its_beginning():
    """Cutting first and searching then would leave half a key, which no pattern knows."""
    key = KEYS["anthropic"]
    for offset in range(40):
        clean = redact({"note": "x" * (8_192 - offset) + " " + key + " " + "y" * 9_000})
        assert "sk-ant" not in clean["note"]


@pytest.mark.parametrize(
    "text",
    ["eyJ" * 30_000, "sk-" * 30_000, "bearer " * 15_000, "bearer" + " " * 90_000, "://" * 30_000,
     "password=" * 10_000, "password" + " " * 90_000, "-----BEGIN PRIVATE KEY-----" * 4_000, "=" * 90_000],
)  # fmt: skip
def test_no_text_makes_the_search_slow(text):
    """A hostile answer of a server must not hold a thread for minutes."""
    started = time.thread_time()
    without_keys(text)
    assert time.thread_time() - started < 2


@given(st.text(st.characters(codec=None)))
def test_any_text_becomes_one_visible_line(text):
    """A line break, an escape sequence or an override in a value must not change what the reader sees."""
    clean = one_line(text)
    assert len(clean.splitlines()) <= 1
    assert not set(clean) & set("\x1b\r\n\x85\u2028\u2029\u202e\u200b\x00\x7f\x9b")
    clean.encode("utf-8")


ANY_TEXT = st.text(st.characters(codec=None), max_size=20)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=5)
VALUES = st.recursive(
    PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(ANY_TEXT, v, max_size=3), max_leaves=5
)


@settings(max_examples=50)
@given(st.dictionaries(ANY_TEXT, VALUES, max_size=3))
def test_any_fields_become_plain_json(fields):
    """A log call never raises, whatever it is given."""
    clean = redact(fields)
    assert json.loads(json.dumps(clean, allow_nan=False)) == clean
