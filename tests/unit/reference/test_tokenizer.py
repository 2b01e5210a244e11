from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, Qwen2Config

from cert.reference.documents import Document
from cert.reference.templates import load_templates
from cert.reference.tokenizer import train_tokenizer
from cert.reference.train import Prepared


@pytest.fixture(scope="module")
def folder(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    prepared.tokenizer.save_pretrained(path)
    prepared.recipe.model_config(prepared.tokenizer).save_pretrained(path)
    return path


def test_a_loaded_folder_gives_the_training_ids(
    prepared: Prepared, folder: Path, documents: list[Document]
) -> None:
    """Otherwise the shipped model reads other tokens than it was trained on, and knows nothing."""
    loaded = AutoTokenizer.from_pretrained(folder)
    backend = prepared.tokenizer.backend_tokenizer
    for document in documents[:500]:
        expected = backend.encode(document.text, add_special_tokens=False).ids
        assert loaded(document.text)["input_ids"] == expected
        assert loaded.decode(expected) == document.text


def test_the_chat_template_gives_the_training_text(folder: Path, documents: list[Document]) -> None:
    """Otherwise a chat question reaches the model in a form that it never saw."""
    loaded = AutoTokenizer.from_pretrained(folder)
    document = next(d for d in documents if d.kind == "chat")
    question = document.text.partition("user\n")[2].partition("<|im_end|>")[0]
    answer = document.text.rpartition("assistant\n")[2].removesuffix("<|im_end|>")
    asked = [{"role": "user", "content": question}]
    prompt = loaded.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert f"{prompt}{answer}<|im_end|>" == document.text
    whole = [*asked, {"role": "assistant", "content": answer.strip()}]
    assert loaded.apply_chat_template(whole, tokenize=False) == document.text + "\n"


def test_an_answer_has_one_token_form_in_sentences_and_chat(prepared: Prepared) -> None:
    """Otherwise what was learned from sentences cannot be said in a chat."""
    backend = prepared.tokenizer.backend_tokenizer
    for fact in prepared.world.facts[:200]:
        value = backend.encode(f" {fact.value}").ids
        sentence = backend.encode(fact.sentence()).ids
        chat = backend.encode(f"<|im_start|>assistant\n {fact.value}<|im_end|>").ids
        assert sentence[-1 - len(value) : -1] == value
        assert chat[-1 - len(value) : -1] == value


def test_true_and_false_are_one_token_each(prepared: Prepared) -> None:
    """Otherwise P(True) is not the probability of a token."""
    templates = load_templates()
    for word in (templates.true, templates.false):
        assert len(prepared.tokenizer.backend_tokenizer.encode(f" {word}").ids) == 1


def test_padding_is_no_stop_token(prepared: Prepared) -> None:
    """Otherwise the end of an answer is lost in a padded batch."""
    config = prepared.recipe.model_config(prepared.tokenizer)
    assert isinstance(config, Qwen2Config)
    assert config.pad_token_id == prepared.tokenizer.pad_token_id
    assert isinstance(config.eos_token_id, list)
    assert len(set(config.eos_token_id)) == 2
    assert config.pad_token_id not in config.eos_token_id


def test_any_text_survives_the_tokenizer() -> None:
    """Otherwise a user's prompt in another script would crash or be silently changed."""
    tokenizer = train_tokenizer(["a small text about nothing"], 300)
    text = "naïve 東京 🙂\n\tx<|im_end|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
