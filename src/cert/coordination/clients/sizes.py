"""How large a request is before anybody has counted its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cert.coordination.chat import ChatRequest
from cert.core.errors import InputError

__all__ = ["input_tokens_at_most", "likely_tokens", "texts_of"]

# What vendors put around a prompt: marks of the chat, of each message, and their own instructions for tools
# (several hundred tokens in Anthropic's table of 2026).
_CHAT_TOKENS = 64
_MESSAGE_TOKENS = 16
_TOOL_TOKENS = 1024
# A usual text has four bytes a token or more, one in code or in another script fewer.
_BYTES_PER_TOKEN = 3


def texts_of(request: ChatRequest) -> Iterator[str]:
    """Yield every text that the model reads."""
    if request.system:
        yield request.system
    for message in request.messages:
        yield message.content
    if request.tool is not None:
        yield request.tool.name
        yield request.tool.description
        yield json.dumps(dict(request.tool.schema), ensure_ascii=False)


def input_tokens_at_most(request: ChatRequest) -> int:
    """Return a number of tokens that no tokenizer goes beyond: no token is less than a byte.

    Raises:
        InputError: a text holds half of a surrogate pair, which no UTF-8 can hold.
    """
    around = _CHAT_TOKENS + _MESSAGE_TOKENS * len(request.messages)
    return _bytes(request) + around + (_TOOL_TOKENS if request.tool else 0)


def likely_tokens(request: ChatRequest) -> int:
    """Return about how many tokens a request takes of a rate, those that it may generate included."""
    return -(-_bytes(request) // _BYTES_PER_TOKEN) + request.max_tokens


def _bytes(request: ChatRequest) -> int:
    try:
        return sum(len(text.encode()) for text in texts_of(request))
    except UnicodeEncodeError:
        # The error itself would quote the text.
        raise InputError("the prompt holds half of a surrogate pair, which is no character") from None
