"""JSONL files: every form of record is read, and a broken line costs no other."""

import gzip
import json
import math
from collections.abc import Generator
from typing import cast

import numpy as np
import pytest

from cert.backends import Generation, Message, Sampling
from cert.backends.stored import StoredBackend, StoredItem, StoredOptions, read_stored
from cert.core.errors import ConfigurationError, InputError

WORDS = ("The", " sea", " is", " deep", ".")


def response(words=WORDS, **changes):
    """A chat completion in which every step has three candidates."""
    content = []
    for place, word in enumerate(words):
        others = [(word, -0.25 - 0.01 * place), (" red", -2.0), (" old", -3.0 - place)]
        top = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in others]
        content.append({**top[0], "top_logprobs": top})
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(words), "refusal": None},
        "logprobs": {"content": content, "refusal": None},
        "finish_reason": "length",
    }
    usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    return {
        "id": "x", "object": "chat.completion", "created": 1, "model": "sea-1",
        "choices": [choice], "usage": usage, **changes,
    }  # fmt: skip


def legacy():
    tokens = ["a", " b"]
    logprobs = {
        "tokens": tokens,
        "token_logprobs": [-0.5, -0.7],
        "top_logprobs": [{"a": -0.5, "c": -1.5}, {" b": -0.7, " c": -1.1}],
        "text_offset": [0, 1],
    }
    choice = {"index": 0, "text": "a b", "logprobs": logprobs, "finish_reason": "length"}
    return {"id": "y", "object": "text_completion", "model": "old-1", "choices": [choice]}


def write(path, *lines):
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def only(path, **options):
    (item,) = read_stored(path, options=StoredOptions(**options))
    return item


def error(item):
    assert isinstance(item.outcome, InputError)
    return item.outcome


def message(item):
    return error(item).message


def test_a_chat_completion_is_read_as_it_was_answered(tmp_path):
    """The numbers of a stored answer must be those that the server gave, each at its token."""
    g = only(write(tmp_path / "a.jsonl", response()), top_k=3).unwrap()
    assert (g.text, g.tokens, g.model.name, g.prompt_tokens) == ("The sea is deep.", WORDS, "sea-1", 7)
    np.testing.assert_array_equal(g.steps.logprob, [-0.25, -0.26, -0.27, -0.28, -0.29])
    np.testing.assert_array_equal(g.steps.top_logprobs[1], [-0.26, -2.0, -4.0])
    assert (g.prompt, g.sampling, g.duration_s, g.logprobs_mode) == (None, None, None, "unknown")
    assert g.model.backend == "stored"


def test_a_legacy_completion_is_read(tmp_path):
    """The older form of log-probabilities, columns and objects, is still what many logs have."""
    g = only(write(tmp_path / "a.jsonl", legacy())).unwrap()
    np.testing.assert_array_equal(g.steps.logprob, [-0.5, -0.7])
    assert g.text == "a b"


def test_a_pair_brings_its_prompt_and_its_settings(tmp_path):
    """An analysis of a log should say what was asked, where the log says it."""
    content = [{"type": "text", "text": "How "}, {"type": "text", "text": "deep?"}]
    request = {
        "model": "sea", "temperature": 0.5, "top_p": 0.9, "seed": 3,
        "messages": [{"role": "user", "content": content}],
    }  # fmt: skip
    g = only(write(tmp_path / "a.jsonl", {"request": request, "response": response()})).unwrap()
    assert g.prompt == (Message("user", "How deep?"),)
    assert g.sampling == Sampling(0.5, 0.9, None, 3)


@pytest.mark.parametrize(
    ("request_body", "prompt", "sampling"),
    [
        ({"prompt": "Sea:"}, "Sea:", None),
        ({"prompt": ["Sea:"], "temperature": 0}, "Sea:", Sampling()),
        ({"prompt": [1, 2], "temperature": -1}, None, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None, None),
        ({"messages": "?", "prompt": 5, "temperature": "hot"}, None, None),
        (None, None, None),
    ],
)
def test_what_a_request_does_not_say_in_text_is_not_made_up(tmp_path, request_body, prompt, sampling):
    """A prompt with an image is not its text, and a server's own temperature is not 0."""
    g = only(write(tmp_path / "a.jsonl", {"request": request_body, "response": response()})).unwrap()
    assert (g.prompt, g.sampling) == (prompt, sampling)


def test_output_of_the_batch_api_is_read_under_its_custom_ids(tmp_path):
    """Answers and failures of a batch must stay with the requests that they belong to."""
    path = write(
        tmp_path / "a.jsonl",
        {"id": "b", "custom_id": "one", "response": {"status_code": 200, "body": response()}, "error": None},
        {
            "id": "b",
            "custom_id": "two",
            "response": {"status_code": 429, "body": {"error": {"message": "s"}}},
        },
        {
            "id": "b",
            "custom_id": "three",
            "response": None,
            "error": {"code": "expired", "message": "secret"},
        },
    )
    items = list(read_stored(path))
    assert [item.key for item in items] == ["one", "two", "three"]
    assert isinstance(items[0].outcome, Generation)
    assert [message(item).startswith("the request failed") for item in items[1:]] == [True, True]
    assert "secret" not in str(error(items[2]).to_dict())


def test_each_answer_of_a_request_for_several_is_a_generation(tmp_path):
    """Samples of one prompt are analysed one by one, not the first alone."""
    two = response(["One"])["choices"] + [{**response(["Two"])["choices"][0], "index": 1}]
    items = list(read_stored(write(tmp_path / "a.jsonl", response(choices=two))))
    assert [(item.number, item.choice, item.unwrap().text) for item in items] == [
        (1, 0, "One"),
        (1, 1, "Two"),
    ]


BROKEN = [
    (b'{"choices": [', "cannot be read"),
    (b"[]", "cannot be read"),
    (b"null", "cannot be read"),
    (b"\x00\x00", "cannot be read"),
    (b"[" * 200_000, "cannot be read"),
    (b'{"a":' * 200_000, "cannot be read"),
    ({"choices": "no"}, "cannot be read"),
    ({"choices": []}, "no choices"),
    ({"x": 1}, "no record that is known"),
    ({"type": "message", "content": [{"type": "text", "text": "hi"}]}, "no log-probabilities"),
    ({"error": {"message": "secret", "code": "boom"}}, "something failed"),
    (response(choices=[{**response()["choices"][0], "logprobs": None}]), "no log-probabilities"),
    (b'{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[NaN]}}]}', "cannot be read"),
    (b'{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[Infinity]}}]}', "cannot be read"),
    (b'{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[1e999]}}]}', "cannot be read"),
    (b'{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[0.5]}}]}', "above 0"),
    (b'{"choices":[{"text":"\xff","logprobs":null}]}', "cannot be read"),
    ({"kind": "trajectory_record", "key": "k", "analysis": None, "error": {"code": "x"}}, "of a failure"),
    ({"kind": "trajectory_analysis", "schema_version": 2}, "cannot be read"),
    ({"response": 5}, "cannot be read"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_is_its_own_error_and_the_rest_goes_on(tmp_path, line, reason):
    """One bad record in a night's log must not cost the others, nor be passed over in silence."""
    path = write(tmp_path / "a.jsonl", response(), b"", line, b"  ", response(["Still", " here"]))
    before, broken, after = read_stored(path)
    assert reason in message(broken)
    assert (broken.number, error(broken).context["line"]) == (3, 3)
    assert not error(broken).retryable
    assert "secret" not in str(error(broken).to_dict())
    assert (before.number, after.number) == (1, 5)
    assert after.unwrap().text == "Still here"


def test_lines_of_all_forms_may_stand_side_by_side(tmp_path):
    """A file collected from several programs must not be read by the rules of its first line alone."""
    pair = {"request": {"prompt": "p"}, "response": response()}
    path = write(tmp_path / "a.jsonl", response(), pair, {"x": 1}, legacy(), pair, response())
    items = list(read_stored(path))
    prompts = [item.outcome.prompt for item in items if isinstance(item.outcome, Generation)]
    assert prompts == [None, "p", None, "p", None]
    assert isinstance(items[2].outcome, InputError)


def test_a_file_cut_off_in_its_last_line_says_so(tmp_path):
    """The user must see that a record is missing, and why."""
    path = write(tmp_path / "a.jsonl", response(), response())
    path.write_bytes(path.read_bytes()[:-20])
    whole, cut = read_stored(path)
    assert isinstance(whole.outcome, Generation)
    assert message(cut) == "the last line is cut off"


def test_a_last_line_without_a_line_feed_is_read_where_it_is_whole(tmp_path):
    """Many programs leave the last line feed away."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(response()))
    assert only(path).unwrap().text == "The sea is deep."


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_errors(tmp_path):
    """Files that went through an editor elsewhere are still the same records."""
    line = json.dumps(response()).encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line + b"\r\n")
    assert [(item.number, item.unwrap().text) for item in read_stored(path)] == [
        (1, "The sea is deep."),
        (3, "The sea is deep."),
    ]


def test_a_line_over_the_limit_is_passed_over_and_reported(tmp_path):
    """A line of a gigabyte must not take a gigabyte of memory, nor hide the line after it."""
    long = {"choices": [], "pad": "x" * 5_000_000}
    path = write(tmp_path / "a.jsonl", long, response())
    first, second = read_stored(path, options=StoredOptions(max_line_bytes=10_000))
    assert message(first) == "the line is longer than 10,000 bytes"
    assert (second.number, second.unwrap().text) == (2, "The sea is deep.")


def test_repeated_keys_are_refused_where_that_is_asked(tmp_path):
    """With two values for one name it is not known which of them was meant."""
    line = (
        json.dumps(response())
        .encode()
        .replace(b'"logprob": -0.25,', b'"logprob": -0.25, "logprob": -9.0,', 1)
    )
    path = write(tmp_path / "a.jsonl", line)
    assert only(path).unwrap().steps.logprob[0] == -9.0
    assert "a key twice" in message(only(path, refuse_repeated_keys=True))


@pytest.mark.parametrize("kind", [".gz", ".zst"])
def test_compressed_files_are_read_as_they_are(tmp_path, kind):
    """Logs are kept compressed; unpacking them first would take disk and time."""
    plain = write(tmp_path / "a.jsonl", response(), {"x": 1}, legacy()).read_bytes()
    path = tmp_path / f"a.jsonl{kind}"
    if kind == ".gz":
        path.write_bytes(gzip.compress(plain))
    else:
        pa = pytest.importorskip("pyarrow")
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(plain)
    assert [type(item.outcome) for item in read_stored(path)] == [Generation, InputError, Generation]


def test_a_damaged_compressed_file_gives_what_is_whole_and_then_an_error(tmp_path):
    """What can be saved of a half-copied file is, and its end is no silent end."""
    packed = gzip.compress(b"".join(json.dumps(response([f"w{i}"])).encode() + b"\n" for i in range(3000)), 1)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    *whole, last = read_stored(path)
    assert len(whole) > 10
    assert all(isinstance(item.outcome, Generation) for item in whole)
    assert "damaged or cut off" in message(last)


@pytest.mark.parametrize("name", ["none.jsonl", "none.jsonl.gz", "none.jsonl.zst", "folder"])
def test_a_file_that_cannot_be_opened_is_refused_at_once(tmp_path, name):
    """Not at the first record, when a program has said already that it began."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=name):
        read_stored(tmp_path / name)


def test_an_empty_file_has_no_records(tmp_path):
    """Nothing to do is no error."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    assert list(read_stored(path)) == []


def test_settings_that_cannot_be_right_are_refused():
    """A limit of 0 would pass over every line."""
    with pytest.raises(ConfigurationError, match="max_line_bytes"):
        StoredOptions(max_line_bytes=0)


def test_what_is_known_of_the_source_reaches_the_generation(tmp_path):
    """A calibration for raw log-probabilities must not be used on others, and bounds need V."""
    g = only(write(tmp_path / "a.jsonl", response()), logprobs_mode="raw", vocab_size=5000).unwrap()
    assert (g.logprobs_mode, g.steps.vocab_size, g.model.vocab_size) == ("raw", 5000, 5000)


def test_the_backend_of_a_file_reads_and_refuses_to_generate(tmp_path):
    """A monitor has to learn that there is no model before it asks for a text."""
    backend = StoredBackend(write(tmp_path / "a.jsonl", response()))
    assert backend.identity.backend == "stored"
    assert not backend.capabilities.generates
    assert not backend.capabilities.scores
    assert len(list(backend.records())) == 1
    from cert.backends import GenerationRequest, ScoreRequest

    with pytest.raises(ConfigurationError, match="stored records cannot generate"):
        backend.generate(GenerationRequest("x"))
    with pytest.raises(ConfigurationError, match="stored records cannot score"):
        backend.score(ScoreRequest("x", "y"))


def test_reading_stops_where_its_user_stops(tmp_path):
    """Looking at the first records of a large file must not read all of it, nor leave it open."""
    path = write(tmp_path / "a.jsonl", *[response()] * 50)
    items = cast("Generator[StoredItem]", read_stored(path))
    assert math.isfinite(next(items).unwrap().steps.logprob[0])
    items.close()
