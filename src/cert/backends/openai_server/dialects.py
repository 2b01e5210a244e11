"""What is known beforehand of each kind of server that speaks the OpenAI API.

These are starting points: what a running server really gives is found out by the probe, since versions and
start options differ. Where a fact could not be read in a server's own documentation or
source, the note says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cert.backends.base import LogprobsMode
from cert.core.errors import ConfigurationError

__all__ = ["DIALECTS", "GENERIC", "Dialect", "dialect_named", "dialect_of_owner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of server.

    Attributes:
        name: as users write it.
        owners: what it writes as ``owned_by`` in its list of models.
        completions: it continues plain text with log-probabilities.
        most: candidates a step that it gives where its start options say nothing else.
        least: candidates that have to be asked for to get log-probabilities at all.
        limit_field: the name of the limit on new tokens in a chat.
        top_k: it can sample among the k likeliest.
        seeds: it takes a seed, of at most ``largest_seed``.
        chosen_takes_a_place: see `cert.backends.api_records.ReadOptions`.
        echo_tokens: new tokens to ask for when a given text is to be scored by ``echo``; ``None`` where that
            gives no log-probabilities.
        prompt_logprobs: chats give log-probabilities of their prompt, so that an answer can be scored.
        mode: of log-probabilities, unless the server was started otherwise.
        note: its quirks.
        sources: where this was read.
    """

    name: str
    owners: tuple[str, ...] = ()
    completions: bool = True
    most: int = 20
    least: int = 0
    limit_field: str = "max_tokens"
    top_k: bool = True
    seeds: bool = True
    largest_seed: int = 2**63 - 1
    chosen_takes_a_place: bool = False
    echo_tokens: int | None = None
    prompt_logprobs: bool = False
    mode: LogprobsMode = "unknown"
    note: str = field(default="", repr=False)
    sources: tuple[str, ...] = field(default=(), repr=False)


VLLM = Dialect(
    name="vllm",
    owners=("vllm",),
    chosen_takes_a_place=True,
    echo_tokens=0,
    prompt_logprobs=True,
    mode="raw",
    note=(
        "The engine's --logprobs-mode decides raw (default) or processed; --max-logprobs allows 20 unless "
        "set. Chats list the sampled token first and then cut to K, so that a sampled token outside the K "
        "likeliest takes the K-th one's place; completions list K + 1, keyed by text. The token that ended "
        "the answer is listed. -inf is written as -9999. A part of a character is listed as U+FFFD."
    ),
    sources=(
        "https://docs.vllm.ai/en/stable/configuration/engine_args/",
        "https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/serving_chat.py",
        "https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/serving_completion.py",
    ),
)

SGLANG = Dialect(
    name="sglang",
    owners=("sglang",),
    echo_tokens=1,
    mode="processed",
    note=(
        "Log-probabilities are divided by the temperature unless SGLANG_RETURN_ORIGINAL_LOGPROB is set (in "
        "some versions: always). The chosen token is apart from the K likeliest. Completions key candidates "
        "by text. Its log warns that echo and logprobs do not go together, and its code returns them: the "
        "probe decides. That max_tokens=0 is refused, and that seeds hold only with deterministic inference "
        "on, was not verified."
    ),
    sources=(
        "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/openai/utils.py",
        "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/openai/serving_completions.py",
        "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/layers/sampler.py",
    ),
)

LLAMA_CPP = Dialect(
    name="llama.cpp",
    owners=("llamacpp",),
    least=1,
    largest_seed=2**32 - 2,
    mode="raw",
    note=(
        "Log-probabilities are of the softmax over all logits before any sampler, unless post_sampling_probs "
        "is asked for; tokens come with ids; a probability of 0 is the lowest float. Completions list in the "
        "form of chats. The first parts of a character have no entry; the token that ends the answer has one "
        "without text. There is no scoring of given text. Seed 2**32 - 1 means a random one."
    ),
    sources=(
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server-task.cpp",
    ),
)

TGI = Dialect(
    name="tgi",
    completions=False,
    most=5,
    top_k=False,
    mode="processed",
    note=(
        "Chats list at most --max-top-n-tokens candidates (5 unless set; not verified for the last "
        "versions) without bytes, after temperature and top_p: with top_p = 0.5 a single one of probability "
        "1 was seen. Its completions have no log-probabilities. It owns its model by the model's own name."
    ),
    sources=(
        "https://github.com/huggingface/text-generation-inference/blob/main/router/src/lib.rs",
        "https://github.com/huggingface/text-generation-inference/issues/2108",
    ),
)

OPENAI = Dialect(
    name="openai",
    owners=("openai", "system", "openai-internal"),
    completions=False,
    limit_field="max_completion_tokens",
    top_k=False,
    note=(
        "0 to 20 candidates. Models that reason refuse temperature and logprobs. The bytes of each token are "
        "exact. Whether its numbers are raw is not documented. Seeds are best effort."
    ),
    sources=(
        "https://platform.openai.com/docs/api-reference/chat/create",
        "https://platform.openai.com/docs/api-reference/completions/create",
    ),
)

GENERIC = Dialect(
    name="openai-compatible",
    top_k=False,
    chosen_takes_a_place=True,
    echo_tokens=1,
    prompt_logprobs=True,
    note="A server of an unknown kind: all that the probe does not show is taken as missing.",
)

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (VLLM, SGLANG, LLAMA_CPP, TGI, OPENAI, GENERIC)
}


def dialect_named(name: str) -> Dialect | None:
    """Return a dialect by its name, ``None`` for ``auto``.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if name == "auto":
        return None
    if name not in DIALECTS:
        raise ConfigurationError(f"there is no dialect '{name[:40]}'", hint=f"auto, {', '.join(DIALECTS)}")
    return DIALECTS[name]


def dialect_of_owner(owner: str | None, model: str, fingerprint: str | None = None) -> Dialect | None:
    """Tell a server's kind by what it writes in its list of models, ``None`` where that does not say.

    Args:
        owner: ``owned_by`` of the model.
        model: its name.
        fingerprint: ``system_fingerprint`` of an answer; TGI writes its version there.
    """
    for dialect in DIALECTS.values():
        if owner in dialect.owners:
            return dialect
    if owner == model or (fingerprint or "").endswith("-native") or "-sha-" in (fingerprint or ""):
        return TGI
    return None
