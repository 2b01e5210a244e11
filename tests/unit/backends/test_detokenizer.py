"""Every token's place in the text: characters, not bytes, also where a character spans tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from cert.backends.detokenizer import IncrementalDecoder, align


@settings(max_examples=60)
@given(text=st.text(min_size=1, max_size=30))
def test_spans_cover_the_text_without_gaps(tokenizer, text):
    """A gap or an overlap would colour the wrong characters in every report."""
    ids = tokenizer(text)["input_ids"]
    decoded, spans = align(tokenizer, ids)
    assert decoded == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    distinct = sorted({tuple(span) for span in spans.tolist() if span[0] != span[1]})
    assert "".join(decoded[a:b] for a, b in distinct) == decoded


@pytest.mark.parametrize("text", ["naïve 🙂 日本語", "é" * 5, "👩‍👩‍👧‍👦 family", "ends in 🙂"])
def test_tokens_that_share_a_character_share_its_span(tokenizer, text):
    """The bytes of one character come in several tokens; each of them is about that character."""
    ids = tokenizer(text)["input_ids"]
    decoded, spans = align(tokenizer, ids)
    assert decoded == text
    for start, end in spans.tolist():
        assert end > start
    assert len({tuple(span) for span in spans.tolist()}) < len(ids)


def test_a_character_that_is_never_finished_shows_as_the_replacement_character(tokenizer):
    """A generation cut within a character must not lose its last tokens."""
    ids = tokenizer("ok 🙂")["input_ids"][:-1]
    decoded, spans = align(tokenizer, ids)
    assert decoded.endswith("\ufffd")
    assert spans[-1][1] == len(decoded)


def test_special_tokens_have_an_empty_span(tokenizer):
    """A marker within the output is recorded, but it is not text."""
    special = tokenizer.all_special_ids[0]
    ids = [*tokenizer("one")["input_ids"], special, *tokenizer(" two")["input_ids"]]
    decoded, spans = align(tokenizer, ids)
    assert decoded == "one two"
    place = ids.index(special)
    assert spans[place][0] == spans[place][1]


def test_no_tokens_give_an_empty_text(tokenizer):
    """An immediate stop is an answer too."""
    decoded, spans = align(tokenizer, [])
    assert decoded == ""
    assert spans.shape == (0, 2)


@given(text=st.text(max_size=30))
def test_streamed_pieces_join_to_the_text(tokenizer, text):
    """What a live view shows must be what the record holds."""
    ids = tokenizer(text)["input_ids"]
    decoder = IncrementalDecoder(tokenizer)
    pieces = [decoder.push(token_id) for token_id in ids] + [decoder.flush()]
    assert "".join(pieces) == align(tokenizer, ids)[0]


class StrippingTokenizer:
    """Decodes like tokenizers that drop the space before a full stop: pieces do not add up."""

    all_special_ids = ()
    words = ("a", " b", " .", " c")

    def decode(self, ids, **options):
        return "".join(self.words[i] for i in ids).replace(" .", ".")


def test_a_tokenizer_whose_pieces_do_not_add_up_still_gets_spans_within_the_text():
    """Older tokenizers clean up spaces; their reports must not be shifted or cut."""
    text, spans = align(StrippingTokenizer(), [0, 1, 2, 3])
    assert text == "a b. c"
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert (spans[1:, 0] == spans[:-1, 1]).all()
