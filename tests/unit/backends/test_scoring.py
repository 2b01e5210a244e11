"""A text that is there already: the numbers of the generation that would have written it."""

import threading
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cert.backends import GenerationRequest, Message, Sampling, ScoreRequest  # noqa: E402
from cert.backends.control import Control  # noqa: E402
from cert.backends.local import LocalBackend  # noqa: E402
from cert.core.errors import (  # noqa: E402
    ConfigurationError,
    GenerationCancelledError,
    GenerationError,
    GenerationTimeoutError,
    InputError,
    NumericalError,
    PromptTooLongError,
)

PROMPT = "The birth city of"
TOLERANCE = 2e-5


@pytest.fixture
def backend(random_model, tokenizer):
    backend = LocalBackend(random_model, tokenizer, name="random")
    yield backend
    backend.close()


@pytest.fixture
def generation(backend):
    request = GenerationRequest(PROMPT, max_new_tokens=20, sampling=Sampling(1.3, seed=4))
    return backend.generate(request)


def ids_of(generation):
    return tuple(generation.steps.token_ids.tolist())


def same_numbers(one, other, atol=TOLERANCE):
    for column in ("logprob", "entropy", "self_certainty", "top_logprobs"):
        np.testing.assert_allclose(
            getattr(one.steps, column), getattr(other.steps, column), atol=atol, rtol=0
        )
    assert one.steps.token_ids.tolist() == other.steps.token_ids.tolist()


def test_the_tokens_of_a_generation_have_its_numbers(backend, generation):
    """The same text must not be called sure when it is generated and unsure when it is read."""
    scored = backend.score(ScoreRequest(PROMPT, token_ids=ids_of(generation)))
    same_numbers(scored, generation)
    assert scored.text == generation.text
    assert scored.offsets.tolist() == generation.offsets.tolist()
    assert (scored.finish_reason, scored.sampling, scored.logprobs_mode) == ("given", None, "raw")
    assert scored.prompt_tokens == generation.prompt_tokens
    assert [name for name, _ in scored.stages] == ["encode", "queue", "score"]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 19, 20, 21])
def test_a_pass_in_blocks_has_the_numbers_of_one_pass(backend, generation, monkeypatch, block):
    """A large vocabulary must not be read in another way than a small one."""
    monkeypatch.setattr("cert.backends.scoring._LOGITS", block * backend.identity.vocab_size)
    passes: list[int] = []
    forward = backend.model.forward

    def watched(*args, **kwargs):
        passes.append(kwargs["input_ids"].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.model, "forward", watched)
    scored = backend.score(ScoreRequest(PROMPT, token_ids=ids_of(generation)))
    same_numbers(scored, generation)
    assert len(passes) == -(-20 // block)
    assert sum(passes) == generation.prompt_tokens + 19


def test_logits_of_a_block_only_are_in_memory(backend, generation, monkeypatch):
    """All positions at once would be 600 MB for a thousand tokens of a usual vocabulary."""
    monkeypatch.setattr("cert.backends.scoring._LOGITS", 4 * backend.identity.vocab_size)
    widths = []
    forward = backend.model.forward

    def watched(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        widths.append(outputs.logits.shape[1])
        return outputs

    monkeypatch.setattr(backend.model, "forward", watched)
    backend.score(ScoreRequest(PROMPT, token_ids=ids_of(generation)))
    assert widths == [4] * 5


@pytest.mark.parametrize("completion", [" Paris", "Paris", " 東京 🌍", "\n\nand", "a" * 50, " The"])
def test_a_text_is_cut_as_the_tokenizer_cuts_it_after_the_prompt(backend, tokenizer, completion):
    """And its own text comes back, whole."""
    scored = backend.score(ScoreRequest(PROMPT, completion=completion))
    assert scored.text == completion
    assert tokenizer.decode(ids_of(scored)) == completion
    again = backend.score(ScoreRequest(PROMPT, token_ids=ids_of(scored)))
    assert again.steps.logprob.tobytes() == scored.steps.logprob.tobytes()


def test_a_text_that_would_merge_with_the_prompt_leaves_the_prompt_as_it_is(backend, tokenizer):
    """The prompt's own last token must stay, or another question would be asked."""
    whole = tokenizer("The birth")["input_ids"]
    assert tokenizer("The b")["input_ids"] != whole[: len(tokenizer("The b")["input_ids"])]
    scored = backend.score(ScoreRequest("The b", completion="irth"))
    assert scored.text == "irth"
    assert scored.prompt_tokens == len(tokenizer("The b")["input_ids"])


def test_the_text_of_a_generation_scores_as_its_tokens_where_the_cut_is_the_same(backend):
    """Greedy text mostly cuts back into its own tokens; then nothing may differ."""
    generation = backend.generate(GenerationRequest(PROMPT, max_new_tokens=12))
    scored = backend.score(ScoreRequest(PROMPT, completion=generation.text))
    if ids_of(scored) == ids_of(generation):
        same_numbers(scored, generation)
    assert scored.text == generation.text


def test_an_answer_to_messages_is_read_after_the_template(backend, tokenizer):
    """With the turn of the assistant opened, as when it is generated."""
    chat = (Message("user", "Where?"),)
    generation = backend.generate(GenerationRequest(chat, max_new_tokens=10, sampling=Sampling(1.0, seed=1)))
    scored = backend.score(ScoreRequest(chat, token_ids=ids_of(generation)))
    same_numbers(scored, generation)
    assert backend.score(ScoreRequest(chat, completion=" Here")).text == " Here"


def test_a_stop_token_at_the_end_is_kept_apart(backend, generation, random_model, tokenizer):
    """It is the model's decision to stop, and no signal of a generation counts it."""
    stop = 7
    random_model.generation_config.eos_token_id = stop
    try:
        stopping = LocalBackend(random_model, tokenizer)
    finally:
        random_model.generation_config.eos_token_id = None
    scored = stopping.score(ScoreRequest(PROMPT, token_ids=(*ids_of(generation)[:5], stop)))
    assert scored.stop_step is not None
    assert scored.stop_step.token_ids.tolist() == [stop]
    assert len(scored.steps) == len(scored.offsets) == 5
    alone = stopping.score(ScoreRequest(PROMPT, token_ids=(stop,)))
    assert (len(alone.steps), alone.text) == (0, "")
    assert alone.stop_step is not None
    stopping.close()


@pytest.mark.parametrize("given", [{"completion": ""}, {"token_ids": ()}])
def test_nothing_to_score_is_no_tokens(backend, given):
    """An empty answer is an answer; there is nothing to divide by."""
    scored = backend.score(ScoreRequest(PROMPT, **given))
    assert (len(scored.steps), scored.text, scored.finish_reason) == (0, "", "given")


@pytest.mark.parametrize("token_ids", [(-1,), (5, 10**6), (2**70,), (0, -5, 3)])
def test_ids_that_the_model_does_not_have_are_refused_by_number(backend, token_ids):
    """On a GPU such an index ends the process; the message names the one that is wrong."""
    wrong = next(number for number in token_ids if not 0 <= number < 1600)
    with pytest.raises(InputError, match=f"token {wrong} "):
        backend.score(ScoreRequest(PROMPT, token_ids=token_ids))


def test_a_text_may_fill_the_context_window_and_no_more(backend):
    """The last token needs no position after it, and one beyond is refused with both numbers."""
    before = len(backend.encoder.encode(PROMPT))
    room = 128 - before
    assert len(backend.score(ScoreRequest(PROMPT, token_ids=(9,) * room)).steps) == room
    with pytest.raises(PromptTooLongError, match=r"129 tokens .* 128"):
        backend.score(ScoreRequest(PROMPT, token_ids=(9,) * (room + 1)))
    with pytest.raises(PromptTooLongError):
        backend.score(ScoreRequest("word " * 300, completion="x"))


@pytest.mark.parametrize(
    "given", [{}, {"completion": "x", "token_ids": (1,)}, {"completion": "x", "top_logprobs": -1}]
)
def test_a_request_is_either_text_or_tokens(given):
    """Both would leave open which of them was scored."""
    with pytest.raises(ConfigurationError):
        ScoreRequest(PROMPT, **given)


def test_nan_is_an_error_and_not_a_number(backend, monkeypatch):
    """No probability can be stated."""
    forward = backend.model.forward

    def broken(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits[0, -1] = float("nan")
        return outputs

    monkeypatch.setattr(backend.model, "forward", broken)
    with pytest.raises(NumericalError):
        backend.score(ScoreRequest(PROMPT, completion=" Paris and more"))


def test_a_model_that_raises_is_a_typed_error_and_the_next_text_is_scored(backend, monkeypatch):
    """One strange text must not end the queue for all."""
    with monkeypatch.context() as patch:
        patch.setattr(backend.model, "forward", lambda *a, **kw: 1 / 0)
        with pytest.raises(GenerationError, match="ZeroDivisionError"):
            backend.score(ScoreRequest(PROMPT, completion=" Paris"))
    assert backend.score(ScoreRequest(PROMPT, completion=" Paris")).text == " Paris"


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda control: setattr(control, "deadline", time.monotonic() - 1), GenerationTimeoutError),
        (Control.cancel, GenerationCancelledError),
    ],
)
def test_scoring_ends_within_a_block(backend, generation, monkeypatch, end, error):
    """A long text of a large vocabulary takes minutes on a CPU; half its numbers are no score."""
    monkeypatch.setattr("cert.backends.scoring._LOGITS", 4 * backend.identity.vocab_size)
    control = Control(timeout=1000.0)
    passes = []
    forward = backend.model.forward

    def watched(*args, **kwargs):
        passes.append(1)
        if len(passes) == 2:
            end(control)
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.model, "forward", watched)
    request = ScoreRequest(PROMPT, token_ids=ids_of(generation))
    with pytest.raises(error) as raised:
        control.wait(backend.begin_score(request, control))
    assert raised.value.partial is None
    assert len(passes) == 2


def test_scoring_and_generating_take_turns(backend):
    """A page of texts to score must not starve a question, nor the other way round."""
    begun = threading.Event()
    first = Control(on_step=lambda count: begun.wait(60))
    plug = backend.begin(GenerationRequest("A", max_new_tokens=1), first)
    order: list[str] = []
    scores = [backend.begin_score(ScoreRequest(PROMPT, completion=" x")) for _ in range(70)]
    question = backend.begin(GenerationRequest(PROMPT, max_new_tokens=1))
    for future in scores:
        future.add_done_callback(lambda _: order.append("score"))
    question.add_done_callback(lambda _: order.append("question"))
    begun.set()
    for future in [plug, question, *scores]:
        future.result(timeout=60)
    assert order.index("question") <= 64
