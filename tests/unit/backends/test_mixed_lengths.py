"""Alone or among others, a request has the same tokens: any mix of lengths, any family of model, float32."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cert.backends import GenerationRequest, Sampling, ScoreRequest  # noqa: E402
from cert.backends.control import Control  # noqa: E402
from cert.backends.local import LocalBackend  # noqa: E402

# float32 sums in another order (other widths, other kernels): over 512 positions that is worth some 1e-6.
TOLERANCE = 2e-5
LENGTHS = [1, 2, 3, 7, 64, 129, 255, 256, 257, 400, 511, 512]
SIZES: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}


def qwen2(vocab):
    from transformers import Qwen2Config

    return Qwen2Config(**SIZES, vocab_size=vocab, intermediate_size=64, num_key_value_heads=2)


def sliding(vocab):
    from transformers import MistralConfig

    return MistralConfig(
        **SIZES, vocab_size=vocab, intermediate_size=64, num_key_value_heads=2, sliding_window=32
    )


def gpt2(vocab):
    from transformers import GPT2Config

    return GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=vocab, n_positions=1024)


def opt(vocab):
    from transformers import OPTConfig

    return OPTConfig(
        **SIZES, vocab_size=vocab, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=1024
    )


def alibi(vocab):
    from transformers import BloomConfig

    return BloomConfig(hidden_size=32, n_head=4, n_layer=2, vocab_size=vocab)


@pytest.fixture(scope="module", params=[qwen2, sliding, gpt2, opt, alibi], ids=lambda make: make.__name__)
def backend(request, tokenizer):
    """A family of models by how it knows positions: rotary, a window, learned, learned by mask, a slope."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(11)
    config = request.param(len(tokenizer))
    for name in ("initializer_range", "init_std"):
        if hasattr(config, name):
            setattr(config, name, 0.3)
    config.eos_token_id = config.bos_token_id = None
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = None
    backend = LocalBackend(model, tokenizer, name=request.param.__name__)
    yield backend
    backend.close()


def rows(backend, sampling, order):
    """Requests with prompts of exactly so many tokens, and limits of their own."""
    random = np.random.default_rng(5)
    prompts = {length: random.integers(4, 500, length).tolist() for length in LENGTHS}
    made = []
    for place in order:
        seed = None if sampling is None else place
        way = Sampling() if sampling is None else Sampling(sampling, seed=seed)
        row = backend._row(
            GenerationRequest("x", max_new_tokens=4 + 2 * (place % 5), sampling=way), Control()
        )
        row.prompt_ids = prompts[LENGTHS[place]]
        made.append(row)
    return made


def run(backend, made):
    backend._enqueue(made)
    return [row.future.result(timeout=300) for row in made]


@pytest.mark.parametrize("sampling", [None, 0.8], ids=["greedy", "sampled"])
def test_a_batch_of_1_to_512_tokens_has_the_tokens_of_single_runs(backend, sampling):
    """Padding that leaks into attention, positions or random numbers changes answers with the traffic."""
    alone = [run(backend, rows(backend, sampling, [place]))[0] for place in range(len(LENGTHS))]
    for order in (range(len(LENGTHS)), [11, 0, 5], [0, 1], [3, 10, 2, 8]):
        for place, together in zip(order, run(backend, rows(backend, sampling, order)), strict=True):
            single = alone[place]
            assert together.steps.token_ids.tolist() == single.steps.token_ids.tolist()
            assert together.text == single.text
            for column in ("logprob", "entropy", "self_certainty", "top_logprobs"):
                one, other = getattr(together.steps, column), getattr(single.steps, column)
                np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("sampling", [None, 0.8], ids=["greedy", "sampled"])
def test_what_was_generated_is_scored_the_same(backend, sampling):
    """One forward pass over the finished text must see what the generation saw, step by step."""
    for place in (0, 4, 11):
        (generated,) = run(backend, rows(backend, sampling, [place]))
        row = backend._score_row(ScoreRequest("x", token_ids=(5,)), Control())
        row.prompt_ids = rows(backend, sampling, [place])[0].prompt_ids
        row.given_ids = generated.steps.token_ids.tolist()
        backend._queue.add([row])
        scored = row.future.result(timeout=300)
        assert scored.text == generated.text
        for column in ("logprob", "entropy", "self_certainty", "top_logprobs"):
            one, other = getattr(scored.steps, column), getattr(generated.steps, column)
            np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=0)
