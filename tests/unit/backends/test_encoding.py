"""Prompts and given texts as tokens: as the model's own tokenizer and template have it, for any thread."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from cert.backends import Message
from cert.backends.encoding import PromptEncoder
from cert.core.errors import InputError, PromptTooLongError


@pytest.fixture(scope="module")
def tok():
    from transformers import AutoTokenizer

    from cert.reference import weights

    return AutoTokenizer.from_pretrained(weights.path())


@pytest.fixture(scope="module")
def encoder(tok):
    return PromptEncoder(tok, "model", len(tok), 128)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(text=TEXTS)
def test_plain_text_is_encoded_as_the_tokenizer_does(text):
    """With its own start token and nothing of ours."""
    tokenizer = _tokenizer()
    encoder = PromptEncoder(tokenizer, "model", len(tokenizer), None)
    assert encoder.encode(text) == tokenizer(text)["input_ids"]


_kept: list[Any] = []


def _tokenizer():
    if not _kept:
        from transformers import AutoTokenizer

        from cert.reference import weights

        _kept.append(AutoTokenizer.from_pretrained(weights.path()))
    return _kept[0]


@given(contents=st.lists(TEXTS, min_size=1, max_size=3))
def test_messages_go_through_the_template_once(contents):
    """A second start token, or a template inside a template, asks another question."""
    tokenizer = _tokenizer()
    encoder = PromptEncoder(tokenizer, "model", len(tokenizer), None)
    messages = tuple(Message(("user", "assistant")[n % 2], content) for n, content in enumerate(contents))
    chat = [{"role": m.role, "content": m.content} for m in messages]
    expected = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
    assert encoder.encode(messages) == expected["input_ids"]


@given(prompt=TEXTS, completion=TEXTS)
def test_prompt_and_given_text_are_the_tokens_of_both(prompt, completion):
    """Whatever the cut between them does, the prompt keeps its tokens and the text comes back."""
    tokenizer = _tokenizer()
    encoder = PromptEncoder(tokenizer, "model", len(tokenizer), None)
    before = encoder.encode(prompt)
    after = encoder.encode_completion(prompt, completion)
    together = tokenizer(prompt + completion)["input_ids"]
    if together[: len(before)] == before:
        assert before + after == together
    else:
        assert after == tokenizer(completion, add_special_tokens=False)["input_ids"]


def spaced():
    """A tokenizer of the SentencePiece kind, of single characters: it puts a space before every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE({letter: n for n, letter in enumerate("▁ab?")}, [], unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?")


def test_a_text_does_not_begin_anew_after_its_prompt():
    """Many tokenizers put a space before a text: in the middle of an answer it was never there."""
    encoder = PromptEncoder(spaced(), "model", 4, None)
    assert encoder.encode("a") == [0, 1]
    assert encoder.encode("ab") == [0, 1, 2]
    assert encoder.encode_completion("a", "b") == [2]
    assert encoder.encode_completion("a", " b") == [0, 2]


def test_a_template_that_begins_with_the_start_token_gets_no_second_one():
    """The most frequent mistake with chat models; the tokenizer would add its own to the template's."""
    from tokenizers import processors

    tokenizer = spaced()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="a $A", special_tokens=[("a", 1)]
    )
    tokenizer.chat_template = "ab{{ messages[0].content }}"
    encoder = PromptEncoder(tokenizer, "model", 4, None)
    assert encoder.encode("b") == [1, 0, 2]
    assert encoder.encode((Message("user", "b"),)) == [0, 1, 2, 2]
    assert encoder.encode_completion((Message("user", "b"),), "b") == [2]


def test_a_prompt_keeps_its_last_token_where_the_text_would_take_it(tok):
    """A prompt of "The b" and a text of "irth" are not "The birth": the model was asked with the first."""
    encoder = PromptEncoder(tok, "model", len(tok), None)
    before = encoder.encode("The b")
    assert tok("The birth")["input_ids"][: len(before)] != before
    assert encoder.encode_completion("The b", "irth") == tok("irth", add_special_tokens=False)["input_ids"]


def test_a_prompt_with_room_for_one_token_is_the_longest(encoder, tok):
    """127 of 128 leave room for an answer, 128 do not."""
    word = " the"
    assert len(tok(word)["input_ids"]) == 1
    assert len(encoder.encode(word * 127)) == 127
    with pytest.raises(PromptTooLongError, match=r"128 tokens .* 128"):
        encoder.encode(word * 128)


@pytest.mark.parametrize(("ids", "wrong"), [([-1, 5], -1), ([5, 10_000], 10_000), ([-7, 10_000], -7)])
def test_the_token_that_is_wrong_is_named(encoder, ids, wrong):
    """The largest is not always the one."""
    with pytest.raises(InputError, match=f"token {wrong} ") as error:
        encoder.check_given([1], ids)
    assert error.value.context == {"token": wrong, "known": encoder.known_ids}


def test_given_ids_fill_the_window_to_the_last(encoder):
    """The last of them predicts nothing."""
    encoder.check_given([1] * 28, [2] * 100)
    with pytest.raises(PromptTooLongError, match="129 tokens"):
        encoder.check_given([1] * 28, [2] * 101)
    encoder.check_given([1], [])


def test_a_tokenizer_that_fails_is_an_input_error_without_the_prompt(encoder):
    """Errors are logged; prompts are not."""

    class Broken:
        chat_template = None

        def __call__(self, texts, add_special_tokens):
            raise RuntimeError(f"cannot do {texts}")

    broken = PromptEncoder(Broken(), "model", 10, None)
    with pytest.raises(InputError, match="RuntimeError") as error:
        broken.encode("secret text")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("quoting", [True, False])
def test_a_template_that_refuses_is_told_without_quoting_messages(tok, monkeypatch, quoting):
    """Its reason is worth telling, the message that it quotes is not."""
    reason = "roles must alternate: secret text" if quoting else "roles must alternate"
    monkeypatch.setattr(tok, "chat_template", "{{ raise_exception('" + reason + "') }}")
    with pytest.raises(InputError, match="refuses these messages") as error:
        PromptEncoder(tok, "model", len(tok), None).encode((Message("user", "secret text"),))
    assert ("roles must alternate" in str(error.value)) is not quoting
    assert "secret" not in str(error.value)


def test_threads_that_encode_at_once_do_not_disturb_one_another(tok):
    """Fast tokenizers refuse to be changed while they are used: a service would fail at its first rush."""
    encoder = PromptEncoder(tok, "model", len(tok), None)
    texts = [f"The birth city of person number {n} " * (n % 9 + 1) for n in range(400)]
    expected = [tok(text)["input_ids"] for text in texts]
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(encoder.encode, texts)) == expected


def test_a_tokenizer_file_that_pads_and_truncates_does_neither_here(tok, tmp_path):
    """Such settings come with some models; they would cut prompts in silence and add tokens to others."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    tok.save_pretrained(tmp_path)
    file = str(tmp_path / "tokenizer.json")
    settings = Tokenizer.from_file(file)
    settings.enable_truncation(max_length=5)
    settings.enable_padding(length=32)
    settings.save(file)
    strange = AutoTokenizer.from_pretrained(tmp_path)
    encoder = PromptEncoder(strange, "model", len(strange), None)
    texts = [f"The birth city of person number {n} " * (n % 9 + 1) for n in range(200)]
    expected = [tok(text)["input_ids"] for text in texts]
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(encoder.encode, texts)) == expected
