"""Prompts and given texts as the ids of tokens, with the chat template applied once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from cert.backends.base import Message, Prompt
from cert.core.errors import InputError, PromptTooLongError

__all__ = ["PromptEncoder"]


@dataclass(frozen=True, slots=True)
class PromptEncoder:
    """Encodes for one model and refuses what the model cannot take.

    Attributes:
        known_ids: the ids that the model has embeddings for are those below.
        context_window: tokens of prompt and answer together.
    """

    tokenizer: Any
    model_name: str
    known_ids: int
    context_window: int | None

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt.

        Raises:
            InputError: the prompt gives no token, or the model has no chat template.
            PromptTooLongError: the prompt leaves no room in the context window.
        """
        ids = self._plain(prompt) if isinstance(prompt, str) else self._chat(prompt)
        if not ids:
            raise InputError("the prompt gives no token")
        self._check_known(ids)
        window = self.context_window
        if window is not None and len(ids) >= window:
            raise self._too_long("the prompt has", len(ids))
        return ids

    def encode_completion(self, prompt: Prompt, completion: str) -> list[int]:
        """Return the ids of a text that follows a prompt.

        Cut together with the prompt where that leaves the prompt's own tokens as they are, since some
        tokenizers begin a text in a way of its own; else cut alone.

        Raises:
            InputError: the text cannot be encoded.
        """
        before = self.encode(prompt)
        rendered = prompt if isinstance(prompt, str) else self._rendered(prompt)
        together = self._plain(rendered + completion, special=isinstance(prompt, str))
        if together[: len(before)] == before:
            return together[len(before) :]
        return self._plain(completion, special=False)

    def check_given(self, prompt_ids: Sequence[int], given: Sequence[int]) -> None:
        """Refuse given ids that the model does not know or that are too many.

        Raises:
            InputError: an id outside the model's range.
            PromptTooLongError: prompt and given text are longer than the context window.
        """
        if given:
            self._check_known(given)
        if self.context_window is not None and len(prompt_ids) + len(given) > self.context_window:
            raise self._too_long("prompt and text have", len(prompt_ids) + len(given))

    def _check_known(self, ids: Sequence[int]) -> None:
        unknown = next((number for number in (min(ids), max(ids)) if not 0 <= number < self.known_ids), None)
        if unknown is not None:
            raise InputError(
                f"there is a token {unknown} and the model knows {self.known_ids}",
                hint="the tokens, or the tokenizer, are those of another model",
                context={"token": unknown, "known": self.known_ids},
            )

    def _too_long(self, what: str, tokens: int) -> PromptTooLongError:
        return PromptTooLongError(
            f"{what} {tokens} tokens and the model's context window is {self.context_window}",
            hint="shorten it",
            context={"tokens": tokens, "context_window": self.context_window},
        )

    def _plain(self, text: str, *, special: bool = True) -> list[int]:
        try:
            # As a list of one: the fast tokenizers let other threads run while they encode a list.
            return list(self.tokenizer([text], add_special_tokens=special)["input_ids"][0])
        # A tokenizer is data of the model: whatever it does with this text, it is this one failure.
        except Exception as error:
            raise InputError(f"the tokenizer cannot encode the prompt: {type(error).__name__}") from error

    def _chat(self, messages: Sequence[Message]) -> list[int]:
        return self._plain(self._rendered(messages), special=False)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if not self.tokenizer.chat_template:
            raise InputError(
                f"model '{self.model_name}' has no chat template, so it cannot be given messages",
                hint="give the prompt as plain text",
            )
        chat = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        # A template is a program of the model's author, in a sandbox.
        except Exception as error:
            said = str(error)
            # It may quote a message, and errors carry no prompts.
            quoted = any(message.content and message.content in said for message in messages)
            reason = type(error).__name__ if quoted or not isinstance(error, TemplateError) else said
            raise InputError(f"the model's chat template refuses these messages: {reason}") from error
