"""What every backend promises, over all of them: in process, and servers of five kinds."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openai")

from cert.backends import (
    Backend,
    Control,
    Generation,
    GenerationRequest,
    Message,
    Prompt,
    Sampling,
    ScoreRequest,
    TokenBlock,
)
from cert.backends.local import LocalBackend
from cert.backends.openai_server import OpenAIBackend
from cert.core.errors import (
    CertError,
    ConfigurationError,
    GenerationCancelledError,
    GenerationTimeoutError,
)
from cert.signals.generation import analyze_steps
from cert.testing import FaultServer, Token, ok

SERVERS = ("openai", "vllm", "sglang", "llama.cpp", "tgi")
WORDS = ("The", " café", " opens", " at", " nine", " o'clock,", " 北京", " time", ".", "\n", "Bye")
KEY = "sk-very-secret-key"


def word(place: int, text: str) -> Token:
    """A token with a distribution of its own."""
    likely = 0.9 - 0.04 * place
    others = tuple((f"~{place}.{rank}", math.log((1 - likely) * 0.45 * 0.55**rank)) for rank in range(25))
    return Token(text, math.log(likely), others)


TOKENS = tuple(word(place, text) for place, text in enumerate(WORDS))


@dataclass
class Subject:
    """A backend with a prompt that it takes; K is what all of them list."""

    backend: Backend
    prompt: Prompt
    top_logprobs: int = 5

    def request(self, tokens: int = 11, **options) -> GenerationRequest:
        return GenerationRequest(
            options.pop("prompt", self.prompt),
            tokens,
            top_logprobs=options.pop("k", self.top_logprobs),
            **options,
        )

    def generate(self, tokens: int = 11, **options) -> Generation:
        return self.backend.generate(self.request(tokens, **options))


@pytest.fixture(params=["local", *SERVERS])
def subject(request, random_model, tokenizer) -> Iterator[Subject]:
    if request.param == "local":
        backend = LocalBackend(random_model, tokenizer, name="random")
        yield Subject(backend, "The birth city of")
        backend.close()
        return
    with FaultServer(flavour=request.param, otherwise=ok(TOKENS), api_key=KEY, known=TOKENS) as server:
        asked = OpenAIBackend("scripted", server.url + "/v1", api_key=KEY)
        plain = asked.capabilities.plain_prompts
        yield Subject(asked, "When?" if plain else (Message("user", "When?"),))
        asked.close()


def same_steps(first: Generation, second: Generation) -> None:
    np.testing.assert_array_equal(first.steps.token_ids, second.steps.token_ids)
    np.testing.assert_allclose(first.steps.logprob, second.steps.logprob, atol=1e-4)
    np.testing.assert_allclose(first.steps.top_logprobs, second.steps.top_logprobs, atol=1e-4)


class Listener:
    """Keeps blocks, and slows the generation down so that it can be ended on its way."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.blocks: list[TokenBlock] = []
        self.seconds = seconds
        self.heard = threading.Event()

    def __call__(self, block: TokenBlock) -> None:
        self.blocks.append(block)
        if sum(len(block.steps) for block in self.blocks) >= 2:
            self.heard.set()
        time.sleep(self.seconds)

    @property
    def text(self) -> str:
        return "".join("".join(block.texts) for block in self.blocks)


def covers(generation: Generation) -> bool:
    """Whether the tokens' spans follow one another over the whole text; parts of one character share its."""
    end, last = 0, None
    for span in generation.offsets.tolist():
        if span == last:
            continue
        if span[0] != end or span[1] < span[0]:
            return False
        last, end = span, span[1]
    return end == len(generation.text)


def test_tokens_are_the_text(subject):
    """A token shown at another place than its own would blame the wrong words."""
    generation = subject.generate()
    assert generation.text
    assert generation.offsets.shape == (len(generation.steps), 2)
    assert covers(generation)


def test_steps_are_log_probabilities_of_the_k_likeliest(subject):
    """Signals are computed from these columns alone."""
    steps = subject.generate().steps
    assert steps.top_logprobs.shape == (len(steps), subject.top_logprobs)
    assert (np.diff(steps.top_logprobs, axis=1) <= 0).all()
    assert (np.exp(steps.top_logprobs).sum(axis=1) <= 1 + 1e-6).all()
    # Greedy: the chosen token is the likeliest one.
    np.testing.assert_array_equal(steps.token_ids, steps.top_ids[:, 0])
    np.testing.assert_allclose(steps.logprob, steps.top_logprobs[:, 0], atol=1e-6)
    signals = analyze_steps(steps)[-1]
    assert signals.perplexity == pytest.approx(math.exp(-float(steps.logprob.mean())))
    assert math.isfinite(signals.mean_entropy_lower)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_as_many_candidates_as_asked(subject, k):
    """Two backends with another K would not be comparable."""
    generation = subject.generate(k=k)
    assert generation.steps.top_k == k
    np.testing.assert_allclose(
        generation.steps.top_logprobs, subject.generate().steps.top_logprobs[:, :k], atol=1e-5
    )


def test_a_limit_on_tokens_holds_and_is_named(subject):
    """An answer that was cut must not look like one that ended."""
    generation = subject.generate(3)
    assert (len(generation.steps), generation.finish_reason) == (3, "length")
    assert generation.stop_step is None


def test_no_token_at_all_is_an_answer_too(subject):
    """The empty generation is a corner that every caller would have to guard against."""
    generation = subject.generate(0)
    assert (generation.text, len(generation.steps), generation.finish_reason) == ("", 0, "length")
    assert generation.steps.top_k == subject.top_logprobs


def test_blocks_are_the_record(subject):
    """What a user sees as it comes has to be what is recorded in the end."""
    listener = Listener()
    control = Control(on_block=listener)
    generation = control.wait(subject.backend.begin(subject.request(), control))
    assert listener.text == generation.text
    for name in ("token_ids", "logprob", "top_ids", "top_logprobs"):
        parts = np.concatenate([getattr(block.steps, name) for block in listener.blocks])
        told = parts[: len(generation.steps)]
        np.testing.assert_array_equal(told, getattr(generation.steps, name))
    same_steps(generation, subject.generate())


def test_steps_are_counted_as_they_are_done(subject):
    """A progress bar would jump or stop."""
    counts: list[int] = []
    generation = subject.backend.generate(subject.request(), on_step=counts.append)
    assert counts[: len(generation.steps)] == list(range(1, len(generation.steps) + 1))


def test_a_timeout_gives_back_what_was_measured(subject):
    """Hours of a slow model would be lost, or worse: waited for."""
    control = Control(timeout=0.4, on_block=Listener(0.1))
    with pytest.raises(GenerationTimeoutError) as raised:
        control.wait(subject.backend.begin(subject.request(), control))
    partial = raised.value.partial
    assert 0 < len(partial.steps) < 11
    assert partial.finish_reason == "timeout"
    assert covers(partial)
    same_steps(partial, subject.generate(len(partial.steps)))


def test_cancelling_ends_it_and_says_so(subject):
    """A caller that hung up would keep a place and the model busy."""
    listener = Listener(0.05)
    control = Control(on_block=listener)
    future = subject.backend.begin(subject.request(), control)
    assert listener.heard.wait(10)
    control.cancel()
    with pytest.raises(GenerationCancelledError) as raised:
        control.wait(future)
    assert 2 <= len(raised.value.partial.steps) < 11


def test_stopping_early_keeps_the_answer_so_far(subject):
    """A gate that has seen enough stops the generation and judges what there is."""
    listener = Listener(0.05)
    control = Control(on_block=listener)
    future = subject.backend.begin(subject.request(), control)
    assert listener.heard.wait(10)
    control.stop()
    generation = control.wait(future)
    assert generation.finish_reason == "early_stop"
    assert 2 <= len(generation.steps) < 11
    assert listener.text.startswith(generation.text)


def test_a_control_that_was_ended_before_takes_no_work(subject):
    """A request that nobody waits for any more must not be sent."""
    control = Control()
    control.cancel()
    with pytest.raises(GenerationCancelledError):
        control.wait(subject.backend.begin(subject.request(), control))


def test_what_a_listener_raises_reaches_the_caller(subject):
    """An error in the caller's own code would be hidden, or end other requests."""

    def listen(_: TokenBlock) -> None:
        raise ZeroDivisionError("of the caller")

    control = Control(on_block=listen)
    with pytest.raises(ZeroDivisionError, match="of the caller"):
        control.wait(subject.backend.begin(subject.request(), control))
    assert subject.generate().text


def test_one_bad_request_leaves_the_others_unharmed(subject):
    """One wrong line of a thousand would cost all of them."""
    bad = GenerationRequest("" if isinstance(subject.prompt, str) else (), top_logprobs=5)
    first, second, third = subject.backend.generate_batch([subject.request(), bad, subject.request()])
    assert isinstance(second, CertError)
    assert isinstance(first, Generation)
    assert isinstance(third, Generation)
    same_steps(first, third)


def test_threads_share_it(subject):
    """A service has many threads and one backend."""
    alone = subject.generate()
    with ThreadPoolExecutor(8) as threads:
        for generation in threads.map(lambda _: subject.generate(), range(16)):
            same_steps(generation, alone)


def test_a_sampled_answer_names_its_seed(subject):
    """Without its seed a sampled answer can never be had again."""
    drawn = subject.generate(sampling=Sampling(temperature=1.0))
    assert drawn.sampling.seed is not None
    given = subject.generate(sampling=Sampling(temperature=1.0, seed=7))
    assert given.sampling == Sampling(temperature=1.0, seed=7) or given.sampling.seed == 7


def test_capabilities_are_true(subject):
    """A monitor decides by them at construction what it can promise."""
    known, generation = subject.backend.capabilities, subject.generate()
    assert known.generates
    assert known.streams
    assert generation.logprobs_mode == known.logprobs_mode
    assert generation.token_ids_known == known.token_ids
    assert generation.model == subject.backend.identity
    assert np.isnan(generation.steps.entropy).any() == (known.logprobs != "full")
    messages = (Message("user", "When?"),)
    for prompt, taken in (("When?", known.plain_prompts), (messages, known.chat)):
        if not taken:
            with pytest.raises(CertError):
                subject.generate(prompt=prompt)


def test_a_scored_text_has_the_numbers_of_its_generation(subject):
    """Stored answers would be judged by other numbers than live ones."""
    if not subject.backend.capabilities.scores:
        with pytest.raises(ConfigurationError, match="cannot score"):
            subject.backend.score(ScoreRequest(subject.prompt, completion=" café"))
        return
    generation = subject.generate(6)
    by_text = ScoreRequest(subject.prompt, completion=" " + generation.text.strip(), top_logprobs=5)
    given = ScoreRequest(subject.prompt, token_ids=tuple(generation.steps.token_ids.tolist()), top_logprobs=5)
    scored = subject.backend.score(given if generation.token_ids_known else by_text)
    assert scored.finish_reason == "given"
    assert scored.sampling is None
    assert covers(scored)
    # The first word differs by its blank.
    np.testing.assert_allclose(scored.steps.logprob[1:], generation.steps.logprob[1:], atol=1e-4)
    np.testing.assert_allclose(scored.steps.top_logprobs[1:], generation.steps.top_logprobs[1:], atol=1e-4)


def test_results_travel_and_secrets_do_not(subject):
    """A worker in another process gets the result; nobody ever gets the key."""
    generation = subject.generate()
    again = pickle.loads(
        pickle.dumps((generation.text, generation.steps, generation.model, generation.offsets))
    )
    assert again[0] == generation.text
    np.testing.assert_array_equal(again[1].logprob, generation.steps.logprob)
    shown = repr(subject.backend) + repr(generation) + repr(vars(subject.backend))
    assert KEY not in shown


def test_a_closed_backend_takes_nothing(subject):
    """Work after the end would hang for ever."""
    subject.generate(1)
    subject.backend.close()
    subject.backend.close()
    with pytest.raises(CertError):
        subject.generate(1)
