"""Responses of the OpenAI API as records: tolerant of what servers vary in, strict with the numbers."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cert.backends.api_records import ApiRecord, ReadOptions, RecordBuilder, read_response
from cert.core.errors import UpstreamProtocolError

NAN = math.nan


def candidate(token: str, logprob: Any, **more) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), **more}


def entry(token: str, logprob: Any, *tops: tuple[str, Any], **more) -> dict[str, Any]:
    return candidate(token, logprob, top_logprobs=[candidate(*top) for top in tops], **more)


def chat(content: str | None, *entries: dict[str, Any], finish: str | None = "stop", **message) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "logprobs": {"content": list(entries)} if entries else None,
        "finish_reason": finish,
    }
    return json.dumps({"object": "chat.completion", "model": "m", "choices": [choice]}).encode()


def columns(text: str, tokens, logprobs, tops, finish="length") -> bytes:
    legacy = {
        "tokens": tokens,
        "token_logprobs": logprobs,
        "top_logprobs": tops,
        "text_offset": [0] * len(tokens),
    }
    choice = {"index": 0, "text": text, "logprobs": legacy, "finish_reason": finish}
    return json.dumps({"object": "text_completion", "choices": [choice]}).encode()


def read(data: bytes, top_k: int | None = None, **options) -> ApiRecord:
    return read_response(data, ReadOptions(top_k=top_k, **options))[0]


def texts(record: ApiRecord) -> list[str]:
    return [record.text[start:end] for start, end in record.offsets.tolist()]


# --- the text ---


def test_the_stop_token_is_kept_apart():
    """vLLM, SGLang and TGI list it: counted as a token it would make every answer look surer at its end."""
    record = read(chat("Paris", entry("Paris", -0.5, ("Paris", -0.5)), entry("<|im_end|>", -0.1, ("x", -4))))
    assert (texts(record), record.finish_reason) == (["Paris"], "stop")
    assert record.stop_step is not None
    assert record.stop_step.logprob.tolist() == [-0.1]


def test_without_a_stop_token_none_is_taken_away():
    """OpenAI does not list it: the last word would be lost."""
    record = read(chat("a b", entry("a", -0.1), entry(" b", -0.2)))
    assert (texts(record), record.stop_step) == (["a", " b"], None)


def test_an_answer_of_nothing_but_its_end_is_empty():
    """A model that stops at once has said nothing, and nothing of it is measured."""
    record = read(chat("", entry("</s>", -0.3)))
    assert (record.text, len(record.steps)) == ("", 0)
    assert record.stop_step is not None
    empty = read(chat("", finish="stop"))
    assert (empty.text, len(empty.steps), empty.stop_step) == ("", 0, None)


@pytest.mark.parametrize("known", [True, False])
def test_parts_of_a_character_share_it(known):
    """A character of two tokens would be shown twice, or all later tokens shifted."""
    first, second = "é".encode()
    parts = [entry("\\xc3", -0.2), entry("\\xa9", -0.3)] if known else [entry("�", -0.2), entry("�", -0.3)]
    if known:
        parts = [part | {"bytes": [byte]} for part, byte in zip(parts, (first, second), strict=True)]
    record = read(chat("aé!", entry("a", -0.1), *parts, entry("!", -0.1)))
    assert record.offsets.tolist() == [[0, 1], [1, 2], [1, 2], [2, 3]]
    assert record.additions() == ("a", "", "é", "!")


def test_tokens_whose_blanks_are_lost_find_their_place():
    """Servers decode each token by itself, which costs some tokenizers the blank before a word."""
    record = read(
        chat("Paris is it", entry("Paris", -0.1), entry("is", -0.1), entry("it", -0.1), entry("</s>", 0))
    )
    assert texts(record) == ["Paris", " is", " it"]
    assert record.stop_step is not None


def test_special_tokens_in_the_middle_take_no_text():
    """A thinking model's marks are tokens and not part of its answer."""
    tokens = [entry("<think>", -0.1), entry("hm", -0.2), entry("</think>", -0.1), entry("42", -0.3)]
    record = read(chat("42", *tokens, entry("</s>", -0.1), reasoning_content="hm"))
    assert (record.text, texts(record)) == ("hm42", ["", "hm", "", "42"])


def test_ids_in_place_of_texts_are_the_models_own():
    """A server can write token_id:N; no text is lost and no id made up."""
    tops = (("token_id:5", -0.1), ("token_id:9", -3))
    record = read(
        chat("ab", entry("token_id:5", -0.1, *tops), entry("token_id:2", -0.1, ("token_id:2", -0.1))), 2
    )
    assert record.token_ids_known
    assert record.steps.top_ids.tolist() == [[5, 9]]
    assert record.stop_step is not None
    assert record.stop_step.token_ids.tolist() == [2]


def test_a_refusal_says_so():
    """A refusal taken for an answer would be judged as one."""
    data = json.loads(chat(None, refusal="I can't."))
    data["choices"][0]["logprobs"] = {"content": None, "refusal": [entry("I", -0.1), entry(" can't.", -0.2)]}
    record = read(json.dumps(data).encode())
    assert (record.finish_reason, record.text, len(record.steps)) == ("refusal", "I can't.", 2)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("length", "length"), ("content_filter", "content_filter"), ("tool_calls", "tool_calls"),
     ("eos_token", "stop"), ("abort", "unknown"), (None, "unknown")],
)  # fmt: skip
def test_reasons_to_finish(given, meant):
    """An answer that was filtered or cut must not pass for a whole one."""
    assert read(chat("a", entry("a", -0.1), finish=given)).finish_reason == meant


def test_tool_calls_without_text_are_no_error():
    """A model that calls a tool says nothing that could be scored."""
    record = read(chat(None, finish="tool_calls", tool_calls=[{"id": "1"}]))
    assert (record.text, len(record.steps), record.finish_reason) == ("", 0, "tool_calls")


def test_choices_come_in_their_order_each_with_its_own_numbers():
    """Several samples of one request must not be mixed."""
    data = json.loads(chat("a", entry("a", -0.1)))
    data["choices"] = [
        data["choices"][0] | {"index": 1},
        json.loads(chat("b", entry("b", -0.7)))["choices"][0],
    ]
    first, second = read_response(json.dumps(data).encode())
    assert (first.text, first.steps.logprob.tolist()) == ("b", [-0.7])
    assert (second.text, second.steps.logprob.tolist()) == ("a", [-0.1])


# --- the numbers ---


def test_a_chosen_token_outside_the_list_is_not_added_to_it():
    """The K likeliest and the chosen one are two things; signals tell them apart by the ids."""
    record = read(chat("z", entry("z", -6, ("a", -0.1), ("b", -3)), finish="length"), 2)
    assert record.steps.top_logprobs.tolist() == [[-0.1, -3]]
    assert record.steps.token_ids[0] not in record.steps.top_ids[0]


def test_an_extra_entry_for_the_chosen_token_is_dropped():
    """OpenAI's completions list K + 1 then; with K columns the likeliest stay."""
    record = read(columns("z", ["z"], [-6.0], [{"z": -6.0, "a": -0.1, "b": -3.0}]), 2)
    assert record.steps.top_logprobs.tolist() == [[-0.1, -3]]


@pytest.mark.parametrize("dialect_does_so", [True, False])
def test_a_chosen_token_in_another_ones_place_leaves_a_gap(dialect_does_so):
    """The chats of vLLM list the chosen one first and cut to K: who the K-th likeliest is cannot be told."""
    record = read(
        chat("z", entry("z", -6, ("z", -6), ("a", -0.5), ("b", -3)), finish="length"),
        3,
        chosen_takes_a_place=dialect_does_so,
    )
    assert record.steps.top_logprobs[0, :2].tolist() == [-0.5, -3]
    assert math.isnan(record.steps.top_logprobs[0, 2]) == dialect_does_so


def test_a_last_candidate_that_none_can_beat_is_kept():
    """Where less probability is left than it has, the chosen one is surely among the K likeliest."""
    record = read(chat("b", entry("b", math.log(0.3), ("a", math.log(0.6)), ("b", math.log(0.3)))), 2)
    assert not np.isnan(record.steps.top_logprobs).any()


@pytest.mark.parametrize("missing", [None, -9999.0, -3.4028234663852886e38])
def test_numbers_that_stand_for_unknown_are_nan(missing):
    """-9999 taken for a log-probability would make one token the most surprising ever seen."""
    record = read(chat("a", entry("a", missing, ("b", -0.2), ("c", missing)), finish="length"), 2)
    assert math.isnan(record.steps.logprob[0])
    np.testing.assert_array_equal(record.steps.top_logprobs, [[-0.2, NAN]])


def test_lists_that_are_short_missing_or_out_of_order():
    """What is not listed is not measured; order is ours, not the server's."""
    data = json.loads(
        chat("abc", entry("a", -1, ("b", -2), ("a", -1)), entry("b", -1, ("b", -1)), entry("c", -1))
    )
    data["choices"][0]["logprobs"]["content"][2]["top_logprobs"] = None
    record = read(json.dumps(data).encode(), 2, chosen_takes_a_place=False)
    np.testing.assert_array_equal(record.steps.top_logprobs, [[-1, -2], [-1, NAN], [NAN, NAN]])


def test_columns_that_lost_a_candidate_are_not_measured():
    """Keys of an object are unique: of two tokens that read the same one is gone, and its number wrong."""
    tops = [{"a": -0.5, "b": -2.0}, {"�": -3.0}]
    record = read(columns("ab", ["a", "b"], [-0.5, -0.4], tops), 2)
    np.testing.assert_array_equal(record.steps.top_logprobs, [[-0.5, -2], [NAN, NAN]])
    assert record.steps.logprob.tolist() == [-0.5, -0.4]


def test_tokens_that_read_the_same_stay_apart():
    """Two parts of characters both show as U+FFFD; taken as one, the chosen one would be the wrong one."""
    record = read(chat("x", entry("�", -2, ("�", -0.5), ("�", -2), ("a", -4)), finish="length"), 3)
    ids = record.steps.top_ids[0].tolist()
    assert len(set(ids)) == 3
    assert record.steps.token_ids[0] == ids[1]
    assert [record.vocabulary.text(number) for number in ids] == ["�", "�", "a"]


def test_a_repeated_candidate_counts_once():
    """Its probability would be counted twice."""
    record = read(chat("a", entry("a", -1, ("a", -1), ("a", -1), ("b", -2)), finish="length"), 3)
    np.testing.assert_array_equal(record.steps.top_logprobs, [[-1, -2, NAN]])


def test_tokens_that_llama_cpp_does_not_list_are_steps_without_a_number():
    """A sequence without its unlikely parts would look too sure."""
    data = json.loads(chat("é", entry("é", -0.1, ("é", -0.1), id=7), finish="length"))
    data["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["id"] = 7
    data["usage"] = {"prompt_tokens": 1, "completion_tokens": 2}
    record = read(json.dumps(data).encode(), 1)
    np.testing.assert_array_equal(record.steps.logprob, [-0.1, NAN])
    assert record.offsets.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (chat("a", entry("a", 0.5)), "above 0"),
        (chat("a", entry("a", -0.1, ("a", -0.1), ("b", 0.2))), "above 0"),
        (chat("a", entry("a", -0.1, ("a", -0.1), ("b", -0.1))), "sum to"),
        (chat("a", entry("z", -0.1, ("a", -0.1))), "sum to"),
        (chat("a", entry("a", "-0.5")), "cannot be read"),
        (chat("a", entry("a", -0.1) | {"bytes": "YQ=="}), None),
        (chat("�", entry("�", -0.1) | {"bytes": [300]}), "between 0 and 255"),
        (chat("some text"), "no log-probabilities"),
        (chat("some text", entry("some", -0.1)), "only a part"),
        (chat("a", entry("a", -0.1, id=3), entry("b", -0.1)), "an id for some"),
        (chat("a", entry("a", -1, id=3) | {"top_logprobs": [candidate("a", -2, id=3)]}), "two log"),
        (columns("a", ["a"], [-0.1, -0.2], [{}]), "differ in length"),
        (b'{"choices": []}', "no choices"),
        (b'{"error": {"message": "boom", "code": "overloaded"}}', "something failed"),
        (b'{"object": "error", "message": "boom", "code": 400}', "something failed"),
        (b'{"choices": [', "cannot be read"),
        (b"<html>", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"choices": [{"logprobs": {"content": [{"token": "a", "logprob": NaN}]}}]}', "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused(data, words):
    """A number that is no log-probability must never become a verdict."""
    if words is None:
        assert read(data).text == "a"
        return
    with pytest.raises(UpstreamProtocolError, match=words):
        read(data)


def test_rounding_above_zero_is_zero():
    """bfloat16 gives log-probabilities a hair above 0; that is certainty, no error."""
    assert read(chat("a", entry("a", 1e-6))).steps.logprob.tolist() == [0.0]


# --- properties ---

# Few letters, so that pieces are found at places that are not theirs.
PIECES = st.lists(st.text("ab é", min_size=1, max_size=3), max_size=12)


def streamed(
    text: str, entries: list[dict[str, Any]], cuts: list[int]
) -> tuple[RecordBuilder, list[Any], ApiRecord]:
    """Feed entries one by one while the text comes at its own pace."""
    builder, blocks, told = RecordBuilder(ReadOptions(3)), [], 0
    for place, one in enumerate(entries):
        upto = min(len(text), max(told, cuts[place % len(cuts)])) if cuts else told
        chunk = {"delta": {"content": text[told:upto]}, "logprobs": {"content": [one]}, "finish_reason": None}
        blocks.append(builder.feed(json.dumps({"choices": [{"index": 0} | chunk]})))
        told = upto
    last = {"index": 0, "delta": {"content": text[told:]}, "finish_reason": "length"}
    blocks.append(builder.feed(json.dumps({"choices": [last]})))
    block, record = builder.finish()
    return builder, [one for one in [*blocks, block] if one is not None], record


@given(PIECES, st.lists(st.integers(0, 48), max_size=6), st.randoms(use_true_random=False))
def test_a_stream_is_the_whole_however_it_is_cut(pieces, cuts, random):
    """Where a server cuts its chunks is no property of the answer."""
    tops = [[(f"~{rank}", math.log(0.3) - rank) for rank in range(random.randint(0, 4))] for _ in pieces]
    entries = [entry(piece, -5.0, *top) for piece, top in zip(pieces, tops, strict=True)]
    text = "".join(pieces)
    whole = read(chat(text, *entries, finish="length"), 3)
    _, blocks, record = streamed(text, entries, sorted(cuts))
    assert record.text == whole.text == text
    assert "".join("".join(block.texts) for block in blocks) == text
    assert record.offsets.tolist() == whole.offsets.tolist()
    for name in ("token_ids", "logprob", "top_ids", "top_logprobs") if pieces else ():
        np.testing.assert_array_equal(getattr(record.steps, name), getattr(whole.steps, name))
        told = [getattr(block.steps, name) for block in blocks]
        np.testing.assert_array_equal(np.concatenate(told), getattr(whole.steps, name))


def test_text_may_come_later_than_its_tokens():
    """Servers hold text back while it may become a stop word; a token must wait for its own."""
    entries = [entry("ab", -1.0), entry("a", -1.0), entry("c", -1.0)]
    _, blocks, record = streamed("abac", entries, [1, 1, 4])
    assert record.offsets.tolist() == [[0, 2], [2, 3], [3, 4]]
    assert [block.texts for block in blocks] == [("ab", "a", "c")]


@given(st.text(max_size=12).filter(lambda text: text.isprintable()), st.integers(1, 3), st.booleans())
def test_bytes_cut_anywhere_make_the_text(text, size, listed_exactly):
    """Tokens of byte-level models know nothing of characters."""
    data = text.encode()
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    entries = []
    for part in parts:
        shown = part.decode("utf-8", "replace")
        exact = listed_exactly or "�" not in shown
        entries.append(entry(shown, -1) | ({"bytes": list(part)} if exact else {}))
    record = read(chat(text, *entries, finish="length"), 0)
    assert len(record.steps) == len(parts)
    assert "".join(record.additions()) == text
    spans = record.offsets
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (np.diff(spans[:, 1]) >= 0).all()


@given(
    st.lists(st.lists(st.floats(-30, 0), max_size=6), min_size=1, max_size=6),
    st.integers(0, 6),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_columns_are_ordered_and_hold_listed_numbers_only(lists, top_k, takes, random):
    """Whatever the order and length of a server's lists, no number comes from elsewhere."""
    scaled = [[value - math.log(max(1.0, sum(map(math.exp, row)) + 0.1)) for value in row] for row in lists]
    entries = [
        entry(f"t{place}", -40.0, *((f"c{place}.{rank}", value) for rank, value in enumerate(row)))
        for place, row in enumerate(scaled)
    ]
    for one in entries:
        random.shuffle(one["top_logprobs"])
    steps = read(chat("".join(f"t{place}" for place in range(len(lists))), *entries, finish="length"), top_k,
                 chosen_takes_a_place=takes).steps  # fmt: skip
    assert steps.top_logprobs.shape == (len(lists), top_k)
    for row, values in zip(steps.top_logprobs, scaled, strict=True):
        expected = sorted(values, reverse=True)[:top_k]
        np.testing.assert_array_equal(row, expected + [NAN] * (top_k - len(expected)))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_do_worse_than_the_error_that_says_so(data):
    """A file or server of anybody must not crash the reader with an error of another kind."""
    with contextlib.suppress(UpstreamProtocolError):
        read(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-20, 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["token", "logprob", "bytes", "top_logprobs", "id", "content"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON, JSON, st.text(max_size=5))
def test_no_json_does_either(logprobs, message, text):
    """The same for answers that are almost right."""
    choice = {"message": message, "logprobs": logprobs, "text": text, "finish_reason": "stop"}
    with contextlib.suppress(UpstreamProtocolError):
        read(json.dumps({"choices": [choice]}).encode())


def test_names_travel():
    """The record of a worker has to name its tokens elsewhere too."""
    names = read(
        chat("é", entry("\\xc3", -0.1) | {"bytes": [195]}, entry("\\xa9", -0.1) | {"bytes": [169]})
    ).vocabulary
    again = pickle.loads(pickle.dumps(names))
    assert [again.text(number) for number in range(3)] == ["�", "�", ""]
