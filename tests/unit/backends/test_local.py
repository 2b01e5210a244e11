"""The in-process backend: the tokens of plain generate, raw numbers, batches like single runs."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cert.backends import GenerationRequest, Message, Sampling  # noqa: E402
from cert.backends.local import LocalBackend  # noqa: E402
from cert.core.errors import (  # noqa: E402
    ConfigurationError,
    GenerationError,
    InputError,
    NumericalError,
    PromptTooLongError,
)
from cert.signals import reduce_logits  # noqa: E402

PROMPTS = ["The birth city of", "A", "What is the employer of someone whose name is rather long, and where?"]


@pytest.fixture
def backend(random_model, tokenizer):
    return LocalBackend(random_model, tokenizer, name="random")


def plain(backend, prompt, tokens=24, **options):
    """What transformers generates when nobody watches."""
    ids = torch.tensor([backend.tokenizer(prompt)["input_ids"]])
    mask = torch.ones_like(ids)
    out = backend.model.generate(ids, attention_mask=mask, max_new_tokens=tokens, pad_token_id=0, **options)
    return out[0, ids.shape[1] :].tolist()


def full_logits(backend, generation):
    """The raw logits of every generated token, by one forward pass over the finished text."""
    prompt = backend.tokenizer(generation.prompt)["input_ids"]
    ids = torch.tensor([prompt + generation.steps.token_ids.tolist()])
    with torch.no_grad():
        return backend.model(ids).logits[0, len(prompt) - 1 : -1].numpy()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_are_those_of_plain_generate(backend, prompt):
    """Watching must not change what is watched."""
    generation = backend.generate(GenerationRequest(prompt, max_new_tokens=24))
    assert generation.steps.token_ids.tolist() == plain(backend, prompt, do_sample=False)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5}],
)
@pytest.mark.parametrize("seed", [0, 12345])
def test_sampled_tokens_are_those_of_plain_generate_with_the_seed(backend, options, seed):
    """The same seed must give the same answer, watched or not."""
    request = GenerationRequest(PROMPTS[0], max_new_tokens=24, sampling=Sampling(**options, seed=seed))
    generation = backend.generate(request)
    torch.manual_seed(seed)
    assert generation.steps.token_ids.tolist() == plain(backend, PROMPTS[0], do_sample=True, **options)


def test_recorded_numbers_are_of_the_raw_logits_even_when_sampling(backend):
    """Numbers after temperature and top-k would call every sampled token sure."""
    sampling = Sampling(temperature=0.5, top_k=3, seed=4)
    generation = backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=20, sampling=sampling))
    expected = reduce_logits(full_logits(backend, generation), generation.steps.token_ids, 20)
    np.testing.assert_allclose(generation.steps.logprob, expected.logprob, atol=1e-4)
    np.testing.assert_allclose(generation.steps.entropy, expected.entropy, atol=1e-4)
    np.testing.assert_allclose(generation.steps.self_certainty, expected.self_certainty, atol=1e-4)
    np.testing.assert_allclose(generation.steps.top_logprobs, expected.top_logprobs, atol=1e-4)


def test_a_logits_processor_of_the_model_does_not_reach_the_recorded_numbers(
    backend, tokenizer, random_model
):
    """A suppressed token changes the choice; the record is still of what the model said."""
    random_model.generation_config.suppress_tokens = plain(backend, PROMPTS[0], tokens=3, do_sample=False)
    try:
        generation = backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=20))
        assert generation.steps.token_ids.tolist() == plain(backend, PROMPTS[0], tokens=20, do_sample=False)
    finally:
        random_model.generation_config.suppress_tokens = None
    expected = reduce_logits(full_logits(backend, generation), generation.steps.token_ids, 20)
    np.testing.assert_allclose(generation.steps.logprob, expected.logprob, atol=1e-4)
    assert (generation.steps.token_ids != expected.top_ids[:, 0]).any()


def test_a_batch_of_mixed_lengths_equals_single_runs(backend):
    """Left padding that leaks into attention or positions would change every number of a batch."""
    requests = [
        GenerationRequest(prompt, max_new_tokens=n) for prompt, n in zip(PROMPTS, (20, 5, 12), strict=True)
    ]
    for request, batched in zip(requests, backend.generate_batch(requests), strict=True):
        alone = backend.generate(request)
        assert batched.steps.token_ids.tolist() == alone.steps.token_ids.tolist()
        assert batched.text == alone.text
        np.testing.assert_allclose(batched.steps.logprob, alone.steps.logprob, atol=2e-5)
        np.testing.assert_allclose(batched.steps.entropy, alone.steps.entropy, atol=2e-5)


def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(backend):
    """A request's answer must not change with whoever happens to ask at the same time."""
    requests = [
        GenerationRequest(p, max_new_tokens=15, sampling=Sampling(0.9, seed=i)) for i, p in enumerate(PROMPTS)
    ]
    alone = [backend.generate(request).steps.token_ids.tolist() for request in requests]
    batched = [generation.steps.token_ids.tolist() for generation in backend.generate_batch(requests)]
    assert batched == alone


def test_requests_sampled_in_different_ways_keep_their_order(backend):
    """Greedy and sampled requests run as separate batches; each answer must come back in its place."""
    ways = [Sampling(), Sampling(0.8, seed=1), Sampling(), Sampling(1.2, top_k=4, seed=2)]
    requests = [GenerationRequest(PROMPTS[i % 3], max_new_tokens=8, sampling=w) for i, w in enumerate(ways)]
    batched = backend.generate_batch(requests)
    assert [g.prompt for g in batched] == [r.prompt for r in requests]
    assert [g.sampling.temperature for g in batched] == [w.temperature for w in ways]


def test_the_stop_token_is_kept_apart_and_not_counted(random_model, tokenizer):
    """A server never shows it: counting it here would give the same answer two different scores."""
    stop = plain(LocalBackend(random_model, tokenizer), PROMPTS[0], do_sample=False)[6]
    random_model.generation_config.eos_token_id = [stop]
    try:
        backend = LocalBackend(random_model, tokenizer)
        generation = backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=24))
    finally:
        random_model.generation_config.eos_token_id = None
    assert generation.finish_reason == "stop"
    assert stop not in generation.steps.token_ids
    assert generation.stop_step is not None
    assert generation.stop_step.token_ids.tolist() == [stop]
    assert len(generation.offsets) == len(generation.steps) <= 6


def test_every_place_that_names_a_stop_token_is_heeded(random_model, tokenizer):
    """Models name their stop tokens in up to three places; one that is missed runs on past the answer."""
    generated = plain(LocalBackend(random_model, tokenizer), PROMPTS[0], do_sample=False)
    random_model.config.eos_token_id = generated[3]
    random_model.generation_config.eos_token_id = generated[9]
    try:
        generation = LocalBackend(random_model, tokenizer).generate(GenerationRequest(PROMPTS[0]))
    finally:
        random_model.config.eos_token_id = random_model.generation_config.eos_token_id = None
    assert generation.stop_step is not None
    assert generation.stop_step.token_ids[0] == generated[3]


def test_immediate_stop_gives_no_tokens(random_model, tokenizer):
    """An empty answer is an answer: nothing divides by its length."""
    random_model.generation_config.eos_token_id = plain(
        LocalBackend(random_model, tokenizer), PROMPTS[0], do_sample=False
    )[0]
    try:
        generation = LocalBackend(random_model, tokenizer).generate(GenerationRequest(PROMPTS[0]))
    finally:
        random_model.generation_config.eos_token_id = None
    assert len(generation.steps) == 0
    assert generation.text == ""
    assert generation.stop_step is not None


def test_no_tokens_asked_for_are_no_tokens(backend):
    """0 is 0, not a default."""
    generation = backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=0))
    assert (len(generation.steps), generation.finish_reason) == (0, "length")


def test_the_context_window_ends_a_generation_and_is_named(backend):
    """Past its window a model gives noise; the answer must say why it is short."""
    prompt = "word " * 50
    room = 128 - len(backend.tokenizer(prompt)["input_ids"])
    generation = backend.generate(GenerationRequest(prompt, max_new_tokens=500))
    assert generation.finish_reason == "context_window"
    assert len(generation.steps) == room


def test_a_prompt_without_room_for_an_answer_is_refused(backend):
    """Refused before the model runs, with both numbers."""
    with pytest.raises(PromptTooLongError, match="context window is 128"):
        backend.generate(GenerationRequest("word " * 300))


def test_a_model_that_gives_nan_is_an_error_for_that_row_alone(backend, random_model, monkeypatch):
    """No probability can be stated; the neighbours in the batch must not suffer."""
    forward = random_model.forward
    calls = []

    def broken(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        calls.append(1)
        if len(calls) == 4:
            outputs.logits[1] = float("nan")
        return outputs

    expected = [backend.generate(GenerationRequest(p, max_new_tokens=8)).text for p in PROMPTS]
    monkeypatch.setattr(random_model, "forward", broken)
    outcomes = backend.generate_batch([GenerationRequest(p, max_new_tokens=8) for p in PROMPTS])
    assert isinstance(outcomes[1], NumericalError)
    assert outcomes[1].context["token"] == 3
    assert [outcomes[0].text, outcomes[2].text] == [expected[0], expected[2]]


def test_nan_while_sampling_is_the_same_error(backend, random_model, monkeypatch):
    """Torch would stop the whole process on a GPU."""
    forward = random_model.forward

    def broken(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits[:] = float("nan")
        return outputs

    monkeypatch.setattr(random_model, "forward", broken)
    with pytest.raises(NumericalError, match="at token 0"):
        backend.generate(GenerationRequest(PROMPTS[0], sampling=Sampling(1.0, seed=0)))


def test_a_bad_request_leaves_the_rest_of_the_batch_unharmed(backend):
    """One prompt that is too long must not cost the others."""
    outcomes = backend.generate_batch(
        [
            GenerationRequest(PROMPTS[0], max_new_tokens=3),
            GenerationRequest("word " * 300),
            GenerationRequest(""),
        ]
    )
    assert outcomes[0].text
    assert isinstance(outcomes[1], PromptTooLongError)
    assert isinstance(outcomes[2], InputError)


def test_the_seed_of_a_sample_is_drawn_and_named(backend):
    """Without it nobody could repeat the answer."""
    request = GenerationRequest(PROMPTS[0], max_new_tokens=12, sampling=Sampling(temperature=1.0))
    first, second = backend.generate(request), backend.generate(request)
    assert first.sampling.seed != second.sampling.seed
    again = GenerationRequest(PROMPTS[0], 12, Sampling(1.0, seed=first.sampling.seed))
    assert backend.generate(again).steps.token_ids.tolist() == first.steps.token_ids.tolist()


def test_what_the_model_itself_says_of_sampling_is_recorded(backend, random_model):
    """A nucleus from the model's own settings is part of how the answer came about."""
    random_model.generation_config.top_p = 0.8
    try:
        generation = backend.generate(GenerationRequest("A", 3, Sampling(temperature=0.6, seed=1)))
    finally:
        random_model.generation_config.top_p = None
    assert (generation.sampling.temperature, generation.sampling.top_p) == (0.6, 0.8)


def test_a_chat_is_rendered_once_with_the_models_template(backend, tokenizer):
    """A second start token or a missing turn marker changes what the model is asked."""
    request = GenerationRequest((Message("user", "Where?"),))
    text = tokenizer.decode(backend.encoder.encode(request.prompt))
    assert text == tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where?"}], add_generation_prompt=True, tokenize=False
    )


def test_messages_for_a_model_without_a_template_are_refused(random_model, tokenizer, monkeypatch):
    """Any template of ours would be a guess."""
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="no chat template"):
        LocalBackend(random_model, tokenizer).generate(GenerationRequest((Message("user", "hi"),)))


def test_every_step_is_told_as_it_comes(backend):
    """A progress bar must move, and end at the number of tokens."""
    seen: list[int] = []
    backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=7), on_step=seen.append)
    assert seen == list(range(1, 8))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.2},
        {"top_k": -1},
        {"seed": -1},
    ],
)
def test_sampling_options_out_of_range_are_refused(options):
    """Refused when they are made, not when a request fails."""
    with pytest.raises(ConfigurationError):
        Sampling(**options)


def test_a_processor_that_writes_in_place_does_not_reach_the_recorded_numbers(
    backend, random_model, monkeypatch
):
    """Some logits processors change the tensor that they are given."""
    from transformers import LogitsProcessorList

    class InPlace:
        def __call__(self, input_ids, scores):
            scores[:, 5] = 1.0e4
            return scores

    prepare = random_model._get_logits_processor
    monkeypatch.setattr(
        random_model, "_get_logits_processor", lambda **kw: LogitsProcessorList([*prepare(**kw), InPlace()])
    )
    generation = backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=4))
    assert generation.steps.token_ids.tolist() == [5, 5, 5, 5]
    expected = reduce_logits(full_logits(backend, generation), generation.steps.token_ids, 20)
    np.testing.assert_allclose(generation.steps.logprob, expected.logprob, atol=1e-4)


def test_the_tokenizers_own_stop_token_ends_an_answer(random_model, tokenizer, monkeypatch):
    """Chat models often name their end of turn in the tokenizer alone."""
    generated = plain(LocalBackend(random_model, tokenizer), PROMPTS[0], do_sample=False)
    monkeypatch.setattr(type(tokenizer), "eos_token_id", generated[4], raising=False)
    generation = LocalBackend(random_model, tokenizer).generate(GenerationRequest(PROMPTS[0]))
    assert generation.stop_step is not None
    assert generation.stop_step.token_ids[0] == generated[4]


def test_a_row_that_has_ended_cannot_fail_afterwards(backend, random_model, monkeypatch):
    """What a model makes of the padding behind a finished answer is not part of that answer."""
    forward = random_model.forward
    calls = []

    def broken(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        calls.append(1)
        if len(calls) > 3:
            outputs.logits[0] = float("nan")
        return outputs

    monkeypatch.setattr(random_model, "forward", broken)
    short, long = backend.generate_batch([GenerationRequest("A", 2), GenerationRequest(PROMPTS[0], 6)])
    assert len(short.steps) == 2
    assert len(long.steps) == 6


@pytest.mark.parametrize("sampling", [Sampling(1e-38, seed=0), Sampling(1.0, seed=0)])
def test_sampling_from_nothing_is_an_error_and_not_noise(backend, random_model, sampling, monkeypatch):
    """A temperature that overflows, or settings that suppress every token, leave no distribution."""
    if sampling.temperature == 1.0:
        everything = list(range(random_model.config.vocab_size))
        monkeypatch.setattr(random_model.generation_config, "suppress_tokens", everything)
    with pytest.raises(NumericalError, match="at token 0"):
        backend.generate(GenerationRequest(PROMPTS[0], sampling=sampling))


def test_a_padding_token_that_the_model_does_not_know_does_no_harm(
    backend, tokenizer, random_model, monkeypatch
):
    """Tokenizers with an added pad token are common; a mixed batch must not fail for it."""
    monkeypatch.setattr(type(tokenizer), "pad_token_id", random_model.config.vocab_size, raising=False)
    requests = [
        GenerationRequest(prompt, max_new_tokens=n) for prompt, n in zip(PROMPTS, (2, 6, 4), strict=True)
    ]
    padded: Any = LocalBackend(random_model, tokenizer).generate_batch(requests)
    assert [g.text for g in padded] == [backend.generate(request).text for request in requests]


def test_ids_that_the_model_does_not_know_are_refused(random_model, tokenizer, monkeypatch):
    """A tokenizer of another model would index past the embedding."""
    backend = LocalBackend(random_model, tokenizer)
    monkeypatch.setattr(backend, "encoder", dataclasses.replace(backend.encoder, known_ids=10))
    with pytest.raises(InputError, match="the model knows 10"):
        backend.generate(GenerationRequest(PROMPTS[0]))


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 0.0}, {"min_p": 3.0}, {"cache_implementation": "no such cache"}]
)
def test_settings_of_the_model_that_make_no_sense_are_a_typed_error(
    backend, random_model, settings, monkeypatch
):
    """A generation config is the author's data; a traceback would look like our own defect."""
    for name, value in settings.items():
        monkeypatch.setattr(random_model.generation_config, name, value)
    with pytest.raises(GenerationError):
        backend.generate(GenerationRequest(PROMPTS[0], sampling=Sampling(0.9, seed=1)))


def test_stop_strings_of_the_model_end_the_answer(backend, model_folder):
    """Some models end their answers by a text; the answer then ended by itself, not at a limit."""
    text = backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=24)).text
    piece = text[len(text) // 2 : len(text) // 2 + 2]
    (model_folder / "generation_config.json").write_text(json.dumps({"stop_strings": [piece]}))
    loaded = LocalBackend.load(str(model_folder))
    generation = loaded.generate(GenerationRequest(PROMPTS[0], max_new_tokens=24))
    assert generation.finish_reason == "stop"
    assert piece in generation.text


def test_a_time_limit_of_the_model_does_not_cut_answers(backend, random_model, monkeypatch):
    """Else the answer would depend on the speed of the machine, and be called complete."""
    monkeypatch.setattr(random_model.generation_config, "max_time", 0.0)
    assert len(backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=6)).steps) == 6


def test_an_error_in_a_callback_is_the_callers_own(backend):
    """A defect of the progress bar must not be reported as one of the model, nor block the next request."""

    def fail(_steps: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        backend.generate(GenerationRequest(PROMPTS[0]), on_step=fail)
    assert backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=2)).text


def test_a_callback_may_ask_the_same_model(backend):
    """A deadlock would be a strange answer to a question."""
    inner: list[str] = []

    def ask(steps: int) -> None:
        if steps == 1:
            inner.append(backend.generate(GenerationRequest("A", max_new_tokens=2)).text)

    assert backend.generate(GenerationRequest(PROMPTS[0], max_new_tokens=3), on_step=ask).text
    assert inner


def test_a_prompt_that_cannot_be_encoded_leaves_the_batch_unharmed(backend):
    """A lone surrogate from one client must not cost the others their answers."""
    bad, good = backend.generate_batch(
        [GenerationRequest("a\ud800"), GenerationRequest("A", max_new_tokens=2)]
    )
    assert isinstance(bad, InputError)
    assert good.text


@pytest.mark.parametrize(
    "template", ["{{ raise_exception(messages[0].content) }}", "{{ 1 / 0 }}", "{{ nope.x.y }}"]
)
def test_a_template_that_fails_is_bad_input_and_quotes_no_prompt(backend, tokenizer, monkeypatch, template):
    """Errors go to logs, and prompts do not."""
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(InputError) as caught:
        backend.generate(GenerationRequest((Message("user", "a secret"),)))
    assert "a secret" not in str(caught.value)
