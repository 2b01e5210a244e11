"""A model in this process as a chat client: shared batches, seeds, records of tokens, and its end."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest

pytest.importorskip("torch")

from cert.backends.base import Backend, Generation, GenerationRequest
from cert.backends.control import Control
from cert.backends.opening import open_backend
from cert.coordination.chat import ChatRequest
from cert.coordination.client import InProcessChatClient
from cert.core.errors import (
    ConfigurationError,
    DeadlineExceededError,
    GenerationError,
    ModelNotFoundError,
    OverloadedError,
    PromptTooLongError,
    RetriesExhaustedError,
)
from cert.core.resilience import ResiliencePolicy
from cert.core.retry import RetryPolicy

QUESTION = "What is the birth date of Daphne Klara Penworth?"


@pytest.fixture(scope="module")
def reference() -> Any:
    backend = open_backend("reference")
    yield backend
    backend.close()


class Watched(Backend):
    """A backend that notes what it is asked, and may refuse or never answer."""

    def __init__(self, inner: Backend, refuse: int = 0, hang: bool = False) -> None:
        self.inner, self.refuse, self.hang = inner, refuse, hang
        self.window = inner.window
        self.asked: list[GenerationRequest] = []
        self.cancelled = 0
        self.at_once = self.most_at_once = 0

    @property
    def identity(self) -> Any:
        return self.inner.identity

    @property
    def capabilities(self) -> Any:
        return self.inner.capabilities

    def begin(self, request: GenerationRequest, control: Control | None = None) -> Future[Generation]:
        self.asked.append(request)
        if self.refuse:
            self.refuse -= 1
            raise OverloadedError("too much is waiting")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        future: Future[Generation] = Future() if self.hang else self.inner.begin(request, control)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: Future[Generation]) -> None:
        self.at_once -= 1
        self.cancelled += future.cancelled()

    def begin_score(self, request: Any, control: Control | None = None) -> Future[Generation]:
        return self.inner.begin_score(request, control)


def test_a_seed_decides_the_answer(reference):
    """A study that cannot be repeated proves nothing; one whose agents all say the same measures nothing."""

    async def run() -> Any:
        async with InProcessChatClient(backend=reference) as client:
            request = ChatRequest.of(QUESTION, temperature=1.5, max_tokens=20, seed=7)
            twice = [(await client.complete(request)).text for _ in range(2)]
            crowd = await asyncio.gather(*(client.complete(QUESTION, seed=n, temperature=1.5, max_tokens=20)
                                           for n in range(8)))  # fmt: skip
            return twice, [completion.text for completion in crowd]

    twice, crowd = asyncio.run(run())
    assert twice[0] == twice[1]
    assert crowd[7] == twice[0]  # also in another batch
    assert len(set(crowd)) > 1


def test_temperature_zero_is_greedy_and_none_is_the_models_own(reference):
    """What a request leaves open must not become greedy decoding, under which all agents agree."""
    watched = Watched(reference)

    async def run() -> Any:
        async with InProcessChatClient(backend=watched) as client:
            return [
                (await client.complete(QUESTION, max_tokens=20, temperature=temperature)).text
                for temperature in (0.0, 0.0, None)
            ]

    texts = asyncio.run(run())
    assert texts[0] == texts[1]
    assert [request.sampling.temperature for request in watched.asked] == [0.0, 0.0, 1.0]


def test_the_record_of_the_tokens_is_there(reference):
    """The trajectory monitor's signals can be read of every answer of a team."""

    async def run() -> Any:
        async with InProcessChatClient(backend=reference, top_logprobs=5) as client:
            return await client.complete(QUESTION, system="Be brief.", max_tokens=20, temperature=0.0)

    completion = asyncio.run(run())
    generation = completion.generation
    assert generation.text == completion.text
    assert generation.steps.top_k == 5
    assert generation.prompt[0].role == "system"
    stopped = generation.stop_step is not None
    assert completion.usage.output_tokens == len(generation.steps) + stopped
    assert completion.usage.input_tokens == generation.prompt_tokens
    assert completion.cost_micro_dollars == 0
    assert (completion.model, completion.finish) == ("reference", "stop")


def test_tasks_that_run_at_once_share_batches_and_no_more_than_fit(reference):
    """A hundred agents must not crowd out the others of this process."""
    watched = Watched(reference)
    watched.window = 4

    async def run() -> int:
        async with InProcessChatClient(backend=watched) as client:
            await asyncio.gather(*(client.complete(QUESTION, max_tokens=4) for _ in range(20)))
            return client.get_cost_stats().completions

    assert asyncio.run(run()) == 20
    assert watched.most_at_once == 4


def test_a_model_with_too_much_to_do_is_asked_again(reference):
    """Another part of the program filled the queue for a moment."""
    policy = ResiliencePolicy(retry=RetryPolicy(attempts=3, initial_seconds=0.01))
    watched = Watched(reference, refuse=2)

    async def run() -> Any:
        async with InProcessChatClient(backend=watched, policy=policy) as client:
            completion = await client.complete(QUESTION, max_tokens=4)
            watched.refuse = 9
            with pytest.raises(RetriesExhaustedError):
                await client.complete(QUESTION, max_tokens=4)
            return completion

    assert asyncio.run(run()).attempts == 3


def test_a_deadline_ends_the_generation(reference):
    """The model must not go on for nobody."""
    watched = Watched(reference, hang=True)

    async def run() -> None:
        async with InProcessChatClient(backend=watched) as client:
            with pytest.raises(DeadlineExceededError):
                await client.complete(QUESTION, timeout=0.2)

    asyncio.run(run())
    assert watched.cancelled == 1


def test_a_cancelled_task_ends_the_generation(reference):
    """The same for a caller that goes away."""
    watched = Watched(reference, hang=True)

    async def run() -> None:
        async with InProcessChatClient(backend=watched) as client:
            task = asyncio.create_task(client.complete(QUESTION))
            while not watched.asked:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert watched.cancelled == 1


def test_a_failure_of_the_model_is_told_as_it_is(reference):
    """It is no server's, so that nobody looks for one."""

    class Broken(Watched):
        def begin(self, request: GenerationRequest, control: Control | None = None) -> Future[Generation]:
            self.asked.append(request)
            future: Future[Generation] = Future()
            future.set_exception(GenerationError("broken"))
            return future

    broken = Broken(reference)

    async def run() -> None:
        async with InProcessChatClient(backend=broken) as client:
            with pytest.raises(GenerationError, match="broken"):
                await client.complete(QUESTION)
        async with InProcessChatClient(backend=reference) as client:
            with pytest.raises(PromptTooLongError):
                await client.complete("word " * 5000)

    asyncio.run(run())
    assert len(broken.asked) == 1


def test_a_model_of_its_own_is_closed_with_it_and_another_one_is_not(reference):
    """A model that is shared must not vanish under the other's feet."""

    async def run() -> None:
        client = InProcessChatClient()
        assert str(client.identity) == "transformers:reference"
        await client.complete(QUESTION, max_tokens=2)
        await client.aclose()
        await client.aclose()
        with pytest.raises(ConfigurationError, match="closed"):
            await client.complete(QUESTION)
        async with InProcessChatClient(backend=reference) as shared:
            await shared.complete(QUESTION, max_tokens=2)
        async with InProcessChatClient(backend=reference) as again:
            await again.complete(QUESTION, max_tokens=2)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"model": "openai:m@http://127.0.0.1:1/v1"}, ConfigurationError),
        ({"model": "/nowhere"}, ModelNotFoundError),
        ({"temperature": -1.0}, ConfigurationError),
        ({"top_logprobs": -1}, ConfigurationError),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(options, kind):
    """A mistake shows when the client is made."""
    with pytest.raises(kind):
        InProcessChatClient(**options)


def test_two_temperatures_are_two_clients(reference):
    """A cache that took the one's answers for the other's would mix two distributions."""
    cool, warm = (InProcessChatClient(backend=reference, temperature=t) for t in (0.5, 1.0))
    assert cool.identity != warm.identity
    assert cool.identity.whole != warm.identity.whole
