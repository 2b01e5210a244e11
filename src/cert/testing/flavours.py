"""The habits of servers that speak the OpenAI API, as far as log-probabilities go.

They are those of vLLM, SGLang, llama.cpp and TGI as read in their sources in 2026, and of OpenAI's reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cert.testing.replies import Token

__all__ = ["FLAVOURS", "MODEL", "Flavour"]

MODEL = "scripted"  # the one that the list of models names


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One server's habits.

    Attributes:
        owner: of the model, ``owned_by`` in the list.
        extra: what else the list says of the model.
        most, least: candidates that may be asked for; fewer than ``least`` gives no log-probabilities.
        clamps: more than ``most`` gives ``most``, in place of an error.
        completions: how they list log-probabilities: in columns, in the form of chats, never, or there is no
            such path.
        columns_keep_chosen: columns list the chosen token besides the K likeliest.
        chosen_first: chats list the chosen token and then the likeliest, K in all.
        lists_stop: the token that ended the answer is listed, and counted.
        stop_text: how that token reads.
        shows_bytes: of a token: exact ones, those of its text, or none.
        shows_ids: tokens come with ids.
        skips_parts: parts of a character but the last are not listed.
        processed: what changes its log-probabilities: ``temperature``, ``top_p``.
        echo: fewest new tokens with which a prompt can be echoed with log-probabilities, ``None`` for never.
        prompt_logprobs: chats give log-probabilities of their prompt when asked.
        takes_top_k: sampling by top_k is known.
        fingerprint: of its answers.
    """

    name: str
    owner: str
    extra: Mapping[str, Any] | None = None
    most: int = 20
    least: int = 0
    clamps: bool = False
    completions: Literal["columns", "as_chat", "bare", "missing"] = "columns"
    columns_keep_chosen: bool = True
    chosen_first: bool = False
    lists_stop: bool = False
    stop_text: str = "<|end|>"
    shows_bytes: Literal["exact", "of_text", "none"] = "exact"
    shows_ids: bool = False
    skips_parts: bool = False
    processed: frozenset[str] = frozenset()
    echo: int | None = None
    prompt_logprobs: bool = False
    takes_top_k: bool = True
    fingerprint: str | None = None

    def models(self) -> dict[str, Any]:
        """Return the list of models."""
        card = {"id": MODEL, "object": "model", "created": 1_760_000_000, "owned_by": self.owner}
        return {"object": "list", "data": [card | dict(self.extra or {})]}

    def seen(self, token: Token, body: Mapping[str, Any]) -> Token:
        """Return a token with the numbers that this server would show for a request."""
        named = {name: body.get(name) for name in self.processed}
        temperature, top_p = named.get("temperature") or 1.0, named.get("top_p")
        if not body.get("temperature") or (temperature == 1.0 and top_p is None):
            return token
        everyone = sorted([(token.text, token.logprob), *token.alternatives], key=lambda one: -one[1])
        weights = [math.exp(logprob / temperature) for _, logprob in everyone]
        rest = max(0.0, 1.0 - sum(math.exp(logprob) for _, logprob in everyone))
        total = sum(weights) + rest ** (1.0 / temperature)
        shares = [weight / total for weight in weights]
        kept = _nucleus(shares, 1.0 if top_p is None else top_p)
        mass = sum(shares[:kept]) if kept < len(shares) else 1.0
        left = {
            text: math.log(share / mass) for (text, _), share in zip(everyone[:kept], shares, strict=False)
        }
        chosen = left.pop(token.text, 0.0)
        return replace(token, logprob=chosen, alternatives=tuple(left.items()))


def _nucleus(shares: Sequence[float], top_p: float) -> int:
    if top_p >= 1.0:
        return len(shares)
    mass = 0.0
    for count, share in enumerate(shares, start=1):
        mass += share
        if mass >= top_p:
            return count
    return len(shares)


FLAVOURS: Mapping[str, Flavour] = {
    flavour.name: flavour
    for flavour in (
        Flavour(name="openai", owner="system", completions="missing", takes_top_k=False, fingerprint="fp_1"),
        Flavour(
            name="vllm",
            owner="vllm",
            extra={"max_model_len": 4096, "root": MODEL},
            chosen_first=True,
            lists_stop=True,
            shows_bytes="of_text",
            echo=0,
            prompt_logprobs=True,
        ),
        Flavour(
            name="sglang",
            owner="sglang",
            extra={"max_model_len": 4096},
            columns_keep_chosen=False,
            lists_stop=True,
            shows_bytes="of_text",
            processed=frozenset({"temperature"}),
            echo=1,
        ),
        Flavour(
            name="llama.cpp",
            owner="llamacpp",
            extra={"meta": {"n_vocab": 50_000, "n_ctx_train": 4096}},
            most=1000,
            least=1,
            completions="as_chat",
            lists_stop=True,
            stop_text="",
            shows_ids=True,
            skips_parts=True,
        ),
        Flavour(
            name="tgi",
            owner=MODEL,
            most=5,
            completions="bare",
            lists_stop=True,
            shows_bytes="none",
            processed=frozenset({"temperature", "top_p"}),
            takes_top_k=False,
            fingerprint="3.3.6-native",
        ),
    )
}
