"""Everything that decides what a training run gives."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from transformers import Qwen2Config, Qwen2Tokenizer

from cert.reference.corpus import DEFAULT_FOLLOW
from cert.reference.documents import CHAT_STOP, PAD, TEXT_STOP
from cert.reference.generate import DEFAULT_PEOPLE
from cert.reference.tokenizer import token_id


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one training run; the defaults made the shipped weights."""

    seed: int = 0
    """Seed of the world, the corpus and the initial weights."""
    people: int = DEFAULT_PEOPLE
    follow: int = DEFAULT_FOLLOW
    vocabulary: int = 1536
    tokenizer_documents: int = 40_000
    width: int = 160
    layers: int = 5
    heads: int = 4
    feed_forward: int = 480
    row: int = 128
    batch: int = 12
    learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    warmup: int = 100

    @property
    def sha256(self) -> str:
        """Digest of the settings: a checkpoint of another recipe is refused."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def model_config(self, tokenizer: Qwen2Tokenizer) -> Qwen2Config:
        """Return the architecture: Qwen2 with tied embeddings, loaded in float32."""
        return Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            use_sliding_window=False,
            bos_token_id=None,
            eos_token_id=[token_id(tokenizer, stop) for stop in (TEXT_STOP, CHAT_STOP)],
            pad_token_id=token_id(tokenizer, PAD),
            dtype="float32",
        )
