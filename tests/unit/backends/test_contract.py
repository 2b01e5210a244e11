"""What every backend promises, over all of them: in process, servers of five kinds, and stored records.

A subject that is stored is a file of what a live one answered: what is promised of an answer is promised of
its record, bit for bit, and what needs a model is refused.
"""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openai")
pytest.importorskip("pyarrow")

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
from cert.backends.stored import StoredBackend, StoredOptions
from cert.backends.stored.parquet_write import GenerationWriter
from cert.core.errors import (
    CertError,
    ConfigurationError,
    GenerationCancelledError,
    GenerationTimeoutError,
    InputError,
)
from cert.signals.generation import analyze_steps
from cert.testing import FaultServer, Token, ok
from cert.trajectory import HamiltonianMonitor, TrajectoryConfig
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.stored import RecordWriter

SERVERS = ("openai", "vllm", "sglang", "llama.cpp", "tgi")
LIVE = ("local", *SERVERS)
# A form of stored file, and whose answers are in it.
STORED = (
    "responses of openai",
    "responses of vllm",
    "responses of llama.cpp",
    "batch output of tgi",
    "analyses of local",
    "analyses of sglang",
    "journal of vllm",
    "parquet of local",
    "parquet of openai",
)
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


class Recorded(Subject):
    """Answers of a live subject, written to a file in one of its forms and read from there."""

    def __init__(self, form: str, live: Subject, folder: Path, server: FaultServer | None) -> None:
        self._form, self.live, self._folder, self._server = form, live, folder, server
        self._lock = threading.Lock()
        self._files = 0
        super().__init__(StoredBackend(self.record(live.generate())), live.prompt, live.top_logprobs)

    def generate(self, tokens: int = 11, **options) -> Generation:
        return self.both(tokens, **options)[1]

    def both(self, tokens: int = 11, **options) -> tuple[Generation, Generation]:
        """Return a live answer and its record."""
        with self._lock:
            live = self.live.generate(tokens, **options)
            return live, self.read(self.record(live), live.steps.top_k)

    def read(self, path: Path, k: int = 5) -> Generation:
        cuts = self.live.backend.identity.backend == "vllm"
        stored = StoredOptions(top_k=max(1, k), chosen_takes_a_place=cuts)
        (item,) = StoredBackend(path, options=stored).records()
        return item.unwrap()

    def record(self, live: Generation) -> Path:
        self._files += 1
        path = self._folder / f"{self._files}.{'parquet' if self._form == 'parquet' else 'jsonl'}"
        if self._form == "parquet":
            with GenerationWriter(path) as table:
                table.write(live)
        elif self._form == "journal":
            with RecordWriter(path) as journal:
                journal.write("a", analyze_generation(live, TrajectoryConfig(top_k=5)))
        elif self._form == "analyses":
            analysis = analyze_generation(live, TrajectoryConfig(top_k=5))
            path.write_text(json.dumps(analysis.to_dict(), allow_nan=False) + "\n")
        else:
            path.write_text(json.dumps(self._exchange(len(live.steps))) + "\n")
        return path

    def _exchange(self, tokens: int) -> dict[str, Any]:
        """Have the last request answered once more, and return it with its response."""
        assert self._server is not None
        asked = self._server.requests[-1]
        body = {name: value for name, value in asked.body.items() if not name.startswith("stream")}
        if not tokens:  # for which a live backend asks no server
            self._server.then([replace(ok(()), finish="length")])
        request = urllib.request.Request(
            self._server.url + asked.path,
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {KEY}"},
        )
        with urllib.request.urlopen(request) as answer:
            response = json.loads(answer.read())
        if self._form == "responses":
            return {"request": body, "response": response}
        return {"custom_id": "a", "request": body, "response": {"status_code": 200, "body": response}}


@contextlib.contextmanager
def opened(name: str, random_model, tokenizer, folder: Path) -> Iterator[Subject]:
    """Open a subject by its name."""
    form, _, whose = name.rpartition(" of ")
    with contextlib.ExitStack() as until:
        server = None
        if whose == "local":
            backend: Backend = LocalBackend(random_model, tokenizer, name="random")
            live = Subject(backend, "The birth city of")
        else:
            server = FaultServer(flavour=whose, otherwise=ok(TOKENS), api_key=KEY, known=TOKENS)
            until.enter_context(server)
            backend = OpenAIBackend("scripted", server.url + "/v1", api_key=KEY)
            plain = backend.capabilities.plain_prompts
            live = Subject(backend, "When?" if plain else (Message("user", "When?"),))
        until.callback(backend.close)
        yield Recorded(form, live, folder, server) if form else live


@pytest.fixture(params=LIVE)
def subject(request, random_model, tokenizer, tmp_path) -> Iterator[Subject]:
    """Every backend that runs a model."""
    with opened(request.param, random_model, tokenizer, tmp_path) as found:
        yield found


@pytest.fixture(params=[*LIVE, *STORED])
def source(request, random_model, tokenizer, tmp_path) -> Iterator[Subject]:
    """Every backend."""
    with opened(request.param, random_model, tokenizer, tmp_path) as found:
        yield found


@pytest.fixture(params=STORED)
def recorded(request, random_model, tokenizer, tmp_path) -> Iterator[Recorded]:
    """Every form of stored file."""
    with opened(request.param, random_model, tokenizer, tmp_path) as found:
        assert isinstance(found, Recorded)
        yield found


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


def test_tokens_are_the_text(source):
    """A token shown at another place than its own would blame the wrong words."""
    generation = source.generate()
    assert generation.text
    assert generation.offsets.shape == (len(generation.steps), 2)
    assert covers(generation)


def test_steps_are_log_probabilities_of_the_k_likeliest(source):
    """Signals are computed from these columns alone."""
    steps = source.generate().steps
    assert steps.top_logprobs.shape == (len(steps), source.top_logprobs)
    assert (np.diff(steps.top_logprobs, axis=1) <= 0).all()
    assert (np.exp(steps.top_logprobs).sum(axis=1) <= 1 + 1e-6).all()
    # Greedy: the chosen token is the likeliest one.
    np.testing.assert_array_equal(steps.token_ids, steps.top_ids[:, 0])
    np.testing.assert_allclose(steps.logprob, steps.top_logprobs[:, 0], atol=1e-6)
    signals = analyze_steps(steps)[-1]
    assert signals.perplexity == pytest.approx(math.exp(-float(steps.logprob.mean())))
    assert math.isfinite(signals.mean_entropy_lower)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_as_many_candidates_as_asked(source, k):
    """Two backends with another K would not be comparable."""
    generation = source.generate(k=k)
    assert generation.steps.top_k == k
    np.testing.assert_allclose(
        generation.steps.top_logprobs, source.generate().steps.top_logprobs[:, :k], atol=1e-5
    )


def test_a_limit_on_tokens_holds_and_is_named(source):
    """An answer that was cut must not look like one that ended."""
    generation = source.generate(3)
    assert (len(generation.steps), generation.finish_reason) == (3, "length")
    assert generation.stop_step is None


def test_no_token_at_all_is_an_answer_too(source):
    """The empty generation is a corner that every caller would have to guard against."""
    generation = source.generate(0)
    assert (generation.text, len(generation.steps), generation.finish_reason) == ("", 0, "length")
    assert generation.steps.top_k == source.top_logprobs


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


def test_threads_share_it(source):
    """A service has many threads and one backend."""
    alone = source.generate()
    with ThreadPoolExecutor(8) as threads:
        for generation in threads.map(lambda _: source.generate(), range(16)):
            same_steps(generation, alone)


def test_a_sampled_answer_names_its_seed(source):
    """Without its seed a sampled answer can never be had again."""
    drawn = source.generate(sampling=Sampling(temperature=1.0))
    assert drawn.sampling.seed is not None
    given = source.generate(sampling=Sampling(temperature=1.0, seed=7))
    assert given.sampling == Sampling(temperature=1.0, seed=7) or given.sampling.seed == 7


def test_capabilities_are_true(source):
    """A monitor decides by them at construction what it can promise."""
    known, generation = source.backend.capabilities, source.generate()
    if isinstance(source, Recorded):
        # What a file holds may be more than is promised of files, and never less.
        assert not any((known.generates, known.scores, known.streams, known.plain_prompts, known.chat))
        assert (known.logprobs, known.logprobs_mode, known.token_ids) == ("top_k", "unknown", False)
        assert known.max_top_logprobs is None
        assert generation.steps.top_k == source.top_logprobs
        assert generation.logprobs_mode in ("unknown", source.live.generate(1).logprobs_mode)
        return
    assert known.generates
    assert known.streams
    assert generation.logprobs_mode == known.logprobs_mode
    assert generation.token_ids_known == known.token_ids
    assert generation.model == source.backend.identity
    assert np.isnan(generation.steps.entropy).any() == (known.logprobs != "full")


def test_an_identity_tells_what_answered(source):
    """Two models' numbers in one chart would be compared as if they were of one."""
    identity, generation = source.backend.identity, source.generate()
    assert identity.name.strip()
    assert identity == source.backend.identity
    if not isinstance(source, Recorded):
        assert generation.model == identity
        return
    # The file is one thing, and which model answered is its record's to say.
    assert (identity.backend, identity.name) == ("stored", "stored:1." + identity.name.rpartition(".")[2])
    model = source.live.backend.identity
    assert generation.model == model or (generation.model.name, generation.model.backend) == (
        "scripted",
        "stored",
    )


def test_a_vocabulary_bounds_entropy_and_nothing_else_does(source):
    """An upper bound that was made up would pass answers of which nobody knows how sure they were."""
    generation = source.generate()
    signals = analyze_steps(generation.steps)[-1]
    known = generation.steps.vocab_size is not None
    assert known == (generation.model.vocab_size is not None)
    assert math.isfinite(signals.max_entropy_upper) == known
    measured = not np.isnan(generation.steps.self_certainty).any()
    assert measured == math.isfinite(signals.mean_self_certainty)
    assert not measured or not np.isnan(generation.steps.entropy).any()


def test_what_is_not_among_the_capabilities_is_refused(source):
    """A prompt that was answered in spite of them would be answered by something else than was asked for."""
    known = source.backend.capabilities
    refusal = CertError if known.generates else ConfigurationError
    messages = (Message("user", "When?"),)
    for prompt, taken in (("When?", known.plain_prompts), (messages, known.chat)):
        if not (known.generates and taken):
            with pytest.raises(refusal):
                source.backend.begin(source.request(prompt=prompt)).result(10)
    if not known.scores:
        with pytest.raises(ConfigurationError, match="cannot score") as raised:
            source.backend.score(ScoreRequest(source.prompt, completion=" café"))
        assert str(raised.value.context["missing"]).startswith("scores")


def test_a_scored_text_has_the_numbers_of_its_generation(subject):
    """Stored answers would be judged by other numbers than live ones."""
    if not subject.backend.capabilities.scores:
        pytest.skip("refused: test_what_is_not_among_the_capabilities_is_refused")
    assert subject.backend.capabilities.scores_plain == isinstance(subject.prompt, str)
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


def test_an_answer_to_messages_has_the_numbers_of_its_generation(subject):
    """A chat that was logged would be judged by other numbers than a live one, or by its questions too."""
    messages = (Message("system", "Be brief."), Message("user", "When?"))
    if not subject.backend.capabilities.scores_chats:
        with pytest.raises(ConfigurationError, match="cannot score an answer to messages") as raised:
            subject.backend.score(ScoreRequest(messages, completion="The café"))
        assert raised.value.context["missing"] == "scores_chats"
        return
    generation = subject.generate(4, prompt=messages)
    assert generation.text.strip()
    scored = subject.backend.score(ScoreRequest(messages, completion=generation.text, top_logprobs=5))
    assert (scored.text, scored.finish_reason) == (generation.text, "given")
    assert (scored.sampling, scored.stop_step, scored.prompt) == (None, None, messages)
    assert scored.tokens == generation.tokens
    np.testing.assert_allclose(scored.steps.logprob, generation.steps.logprob, atol=1e-4)
    np.testing.assert_allclose(scored.steps.top_logprobs, generation.steps.top_logprobs, atol=1e-4)


def test_results_travel_and_secrets_do_not(source):
    """A worker in another process gets the result; nobody ever gets the key."""
    generation = source.generate()
    again = pickle.loads(
        pickle.dumps((generation.text, generation.steps, generation.model, generation.offsets))
    )
    assert again[0] == generation.text
    np.testing.assert_array_equal(again[1].logprob, generation.steps.logprob)
    shown = repr(source.backend) + repr(generation) + repr(vars(source.backend))
    assert KEY not in shown


def test_a_closed_backend_takes_nothing(subject):
    """Work after the end would hang for ever."""
    subject.generate(1)
    subject.backend.close()
    subject.backend.close()
    with pytest.raises(CertError):
        subject.generate(1)


# --- stored records: what is theirs alone ---


def same_bits(first: Any, second: Any) -> None:
    for part in fields(first):
        one, other = getattr(first, part.name), getattr(second, part.name)
        np.testing.assert_array_equal(one, other, err_msg=part.name)


@pytest.mark.parametrize("options", [{}, {"tokens": 3}, {"sampling": Sampling(temperature=0.0)}, {"k": 1}])
def test_a_record_gives_the_signals_of_the_live_answer(recorded, options):
    """Yesterday's log and today's monitor would disagree about the same floats."""
    live, stored = recorded.both(**options)
    assert (stored.text, stored.finish_reason) == (live.text, live.finish_reason)
    np.testing.assert_array_equal(stored.offsets, live.offsets)
    np.testing.assert_array_equal(stored.steps.logprob, live.steps.logprob)
    np.testing.assert_array_equal(stored.steps.top_logprobs, live.steps.top_logprobs)
    # Responses do not say how large a vocabulary is; the server's list of models did.
    assert stored.steps.vocab_size in (live.steps.vocab_size, None)
    live = replace(live, steps=replace(live.steps, vocab_size=stored.steps.vocab_size))
    for one, other in zip(analyze_steps(stored.steps), analyze_steps(live.steps), strict=True):
        same_bits(one, other)
    now, then = (analyze_generation(generation, TrajectoryConfig(top_k=5)) for generation in (stored, live))
    assert [check.outcome for check in now.decision.checks] == [
        check.outcome for check in then.decision.checks
    ]


def test_a_record_tells_what_was_asked(recorded):
    """An analysis of a log should say of which question and settings, where the log does."""
    live, stored = recorded.both(sampling=Sampling(temperature=0.5, top_p=0.9, seed=7))
    assert stored.prompt == live.prompt
    assert stored.sampling == live.sampling
    greedy = recorded.generate()
    assert greedy.sampling is not None
    assert greedy.sampling.greedy


def test_a_record_names_its_tokens(recorded):
    """A report of a log has to show the words, and the candidates beside them."""
    live, stored = recorded.both()
    assert stored.tokens == live.tokens

    def names(generation: Generation) -> list[list[str]]:
        return [[generation.vocabulary.text(number) for number in row] for row in generation.steps.top_ids]

    assert names(stored) == names(live)


def test_one_broken_record_leaves_the_others_unharmed(recorded):
    """One wrong line of a million would cost all of them."""
    live = recorded.live.generate()
    if recorded.record(live).suffix == ".parquet":
        bad = replace(live, steps=replace(live.steps, logprob=np.ones(len(live.steps))))
        path = recorded.record(live)
        with GenerationWriter(path) as table:
            for generation in (live, bad, live):
                table.write(generation)
    else:
        path = recorded.record(live)
        line = path.read_text()
        path.write_text(line + '{"choices": [}\n' + line)
    options = StoredOptions(top_k=5, chosen_takes_a_place=live.model.backend == "vllm")
    first, second, third = StoredBackend(path, options=options).records()
    assert isinstance(second.outcome, InputError)
    assert (second.number, second.outcome.retryable) == (2, False)
    assert 2 in second.outcome.context.values()
    same_bits(first.unwrap().steps, third.unwrap().steps)


def test_a_number_that_is_missing_is_not_measured(recorded):
    """In a log, null is no certainty, and the gate must not take it for one."""
    live = recorded.live.generate()
    path = recorded.record(live)
    if path.suffix == ".parquet":
        holes = live.steps.logprob.copy()
        holes[1] = np.nan
        with GenerationWriter(path) as table:
            table.write(replace(live, steps=replace(live.steps, logprob=holes)))
    else:
        path.write_text(json.dumps(_forgetful(json.loads(path.read_text()))) + "\n")
    stored = recorded.read(path)
    assert np.isnan(stored.steps.logprob).tolist() == [False, True] + [False] * (len(stored.steps) - 2)
    analysis = analyze_generation(stored, TrajectoryConfig(top_k=5))
    outcomes = {check.signal: check.outcome for check in analysis.decision.checks}
    assert outcomes["perplexity"] == "not_measured"
    assert analysis.verdict in ("not_measured", "fail")  # another signal may fail it all the same
    assert math.isnan(analysis.avg_perplexity)


def _forgetful(record: dict[str, Any]) -> dict[str, Any]:
    """Take the second token's log-probability out of a record."""
    if analysis := record.get("analysis", record if "tokens" in record else None):
        analysis["tokens"]["logprob"][1] = None
        return record
    response = record["response"].get("body", record["response"])
    listed = response["choices"][0]["logprobs"]
    if "token_logprobs" in listed:
        listed["token_logprobs"][1] = None
    else:
        entry = listed["content"][1]
        entry["logprob"] = -9999.0
        for candidate in entry["top_logprobs"]:
            if candidate["token"] == entry["token"]:
                candidate["logprob"] = -9999.0
    return record


def test_records_are_for_no_monitor_and_that_is_said_when_it_is_made(recorded):
    """A service that starts, and fails at its first request, was believed to work until then."""
    with pytest.raises(ConfigurationError, match="neither generates nor scores") as raised:
        HamiltonianMonitor(backend=recorded.backend)
    assert "analyze_stored" in str(raised.value.hint)
    with pytest.raises(ConfigurationError, match="cannot generate"):
        recorded.backend.generate(recorded.request())
    outcomes = recorded.backend.generate_batch([recorded.request()] * 2)
    assert [type(outcome) for outcome in outcomes] == [ConfigurationError] * 2


def test_a_file_that_cannot_be_read_is_said_when_it_is_opened(recorded):
    """Not at the first record, when a program has said that it began."""
    with pytest.raises(InputError, match="none"):
        StoredBackend(recorded.backend.path.with_name("none.jsonl"))
