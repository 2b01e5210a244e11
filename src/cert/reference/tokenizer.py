"""A byte-level BPE that the ordinary Qwen2 loading path rebuilds exactly.

``AutoTokenizer`` on a folder of model type ``qwen2`` builds ``Qwen2Tokenizer`` with its own normaliser and
pre-tokenizer, whatever the folder's files say. So the vocabulary is trained inside that very pipeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

from tokenizers import pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from cert.reference.documents import CHAT_START, CHAT_STOP, PAD, SPECIAL_TOKENS, TEXT_STOP

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}{{- ' ' + message['content'] | trim -}}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
"""ChatML as Qwen2 has it, with the leading space that answers have in running text too."""

_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Qwen2Tokenizer:
    """Learn merges from texts; special tokens get the first ids and never take part in a merge."""
    backend = _build({token: i for i, token in enumerate(SPECIAL_TOKENS)}, []).backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (piece for text in texts for piece in _SPECIAL.split(text) if piece)
    backend.train_from_iterator(pieces, trainer)
    model = json.loads(backend.to_str())["model"]
    return _build(model["vocab"], [tuple(merge) for merge in model["merges"]])


def token_id(tokenizer: Qwen2Tokenizer, token: str) -> int:
    """Return the id of one token."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def _build(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Qwen2Tokenizer:
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,  # type: ignore[arg-type]  # pairs, whatever the annotation says
        unk_token=TEXT_STOP,
        eos_token=CHAT_STOP,
        pad_token=PAD,
        extra_special_tokens=[CHAT_START, TEXT_STOP],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
