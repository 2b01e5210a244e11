"""The Hamiltonian monitor: generate with a model and say how far each answer can be trusted.

The name is a picture, not physics: surprisal is drawn as a potential and entropy as a kinetic term, and
their sum as an energy. Every verdict comes from the signals of `cert.signals`, which are the field's own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, overload

from cert.backends.base import Backend
from cert.backends.control import Control, OnStep
from cert.backends.loading import REFERENCE, LoadOptions, peek_vocab_size
from cert.core.errors import BatchError, CertError, ConfigurationError
from cert.core.events import EventHub
from cert.core.health import CheckResult, HealthReport
from cert.core.health_probe import Finding
from cert.core.resources import ManagedResource
from cert.trajectory.engine import Call, HamiltonianEngine, refuse_unseen
from cert.trajectory.requests import PromptLike, generation_request, score_request
from cert.trajectory.resources import GivenBackend, HamiltonianModelResource
from cert.trajectory.streaming import AsyncTrajectoryStream, TrajectoryStream
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["BatchOutcome", "HamiltonianMonitor", "OnDone", "PromptLike"]

BatchOutcome: TypeAlias = TrajectoryAnalysis | CertError
OnDone: TypeAlias = Callable[[int, BatchOutcome], object]


class HamiltonianMonitor:
    """Watches generations of one model, for any number of threads and tasks at once.

    Args:
        model_name: ``reference`` (the default, it comes with the package), a model directory, a hub id, or
            ``openai:MODEL@URL`` for a server that speaks the OpenAI API.
        preload: load the model, or ask the server what it can show, now and not at the first analysis.
        config: thresholds and settings.
        options: how a model is loaded into this process and what is allowed to be loaded.
        backend: a backend that is ready; then ``model_name``, ``preload`` and ``options`` play no part.
        cache_size: analyses that are kept; a repeated greedy or seeded question is answered from them.
        cache_unseeded: keep samples without a seed too.
        hub: hears of loads, analyses and their verdicts; the process's own by default.

    Raises:
        ConfigurationError: a threshold that this model could never exceed, or more candidates than the
            backend shows.
        ResourceError: the model is not there, not safe or not loadable. Told now for a directory, and at
            the first use for a hub id (now with ``preload``).
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] | None = None,
        preload: bool = False,
        *,
        config: TrajectoryConfig | None = None,
        options: LoadOptions | None = None,
        backend: Backend | None = None,
        cache_size: int = 1000,
        cache_unseeded: bool = False,
        hub: EventHub | None = None,
    ) -> None:
        self.config = config or TrajectoryConfig()
        options = options or LoadOptions()
        named = REFERENCE if model_name is None else os.fspath(model_name)
        self.model_name = backend.identity.name if backend else named
        self.resource: ManagedResource[Backend]
        if backend is not None:
            refuse_unseen(backend, self.config)
            self.resource = GivenBackend(backend, hub=hub)
        else:
            if not named.startswith("openai:"):
                self.config.check_vocabulary(peek_vocab_size(named, options))
            self.resource = HamiltonianModelResource(
                named, options, hub=hub, check=lambda loaded: refuse_unseen(loaded, self.config)
            )
        self.engine = HamiltonianEngine(
            self.resource, self.config, cache_size=cache_size, cache_unseeded=cache_unseeded, hub=hub
        )
        if preload:
            self.load()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.unload)

    # --- the model's life ---

    def load(self) -> None:
        """Load the model unless it is loaded."""
        self.resource.load()

    def unload(self) -> None:
        """Let go of the model's memory, and of the analyses that were kept.

        The next analysis loads the model again; a given backend is kept.

        Raises:
            ResourceError: calls are still at work on it after 30 seconds.
        """
        self.clear_cache()
        self.resource.unload()

    def clear_cache(self) -> None:
        """Forget the analyses that were kept."""
        self.engine.cache.clear()

    def health_check(self, timeout: float = 10.0) -> HealthReport:
        """Find out whether the model is in memory and answers: one token is generated and looked at.

        A model that is not loaded is not loaded by this; that is degraded, and nothing is generated.
        """
        loaded = self.resource.health()
        checks = [_result("model", loaded, 0.0)]
        if loaded.status == "healthy":
            start = time.perf_counter()
            checks.append(_result("inference", self._infer(timeout), time.perf_counter() - start))
        return HealthReport(tuple(checks))

    # --- one ---

    def analyze(
        self,
        prompt: PromptLike,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        sampling_top_k: int | None = None,
        seed: int | None = None,
        timeout: float | None = None,
        use_cache: bool = True,
        on_step: OnStep | None = None,
    ) -> TrajectoryAnalysis:
        """Generate from a prompt and analyse the generation.

        Args:
            prompt: text to continue, or the messages of a chat (`Message` or ``{"role": …, "content": …}``).
            max_new_tokens: this and the next three: ``None`` takes the config's value.
            temperature: 0 is greedy.
            top_p: nucleus sampling.
            sampling_top_k: sampling among the k likeliest.
            seed: of the random numbers; ``None`` draws one, which the result names.
            timeout: seconds for the whole call, loading excepted; it stops the generation within a step.
            use_cache: an answer that is there may be returned.
            on_step: called after each step with the number of steps done, for a progress bar.

        Raises:
            InputError: the prompt is no text, empty, over the limit or cannot be encoded.
            ConfigurationError: an option outside its range.
            ResourceError: the model could not be loaded.
            GenerationTimeoutError: the time was over; ``partial`` is the analysis of what there was.
            OverloadedError: too many requests are waiting.
            GenerationError: the generation failed.
        """
        request = generation_request(
            prompt,
            self.config,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            sampling_top_k=sampling_top_k,
            seed=seed,
        )
        control = Control(timeout=timeout, on_step=on_step)
        return self.engine.run(self.engine.call(request, control, use_cache=use_cache))

    async def analyze_async(
        self,
        prompt: PromptLike,
        *,
        timeout: float | None = None,
        use_cache: bool = True,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> TrajectoryAnalysis:
        """Do what `analyze` does, with its arguments, while other tasks run.

        Tasks at the same time share batches. A task that is cancelled ends its generation within a step.
        """
        request = generation_request(prompt, self.config, **options)
        control = Control(timeout=timeout, on_step=on_step)
        return await self.engine.run_async(self.engine.call(request, control, use_cache=use_cache))

    def stream(self, prompt: PromptLike, *, timeout: float | None = None, **options: Any) -> TrajectoryStream:
        """Return an iterator over the tokens as they come, each with its signals.

        Args:
            prompt: as `analyze` has it; streams go past the cache.
            timeout: seconds for the whole stream.
            options: how to generate, as in `analyze`: ``max_new_tokens``, ``temperature``, ``top_p``,
                ``sampling_top_k``, ``seed``.

        Example:
            ``with monitor.stream("…") as stream: for token in stream: print(token.text)``; then
            ``stream.analysis`` is the whole.
        """
        return TrajectoryStream(self.engine, generation_request(prompt, self.config, **options), timeout)

    def stream_async(
        self, prompt: PromptLike, *, timeout: float | None = None, **options: Any
    ) -> AsyncTrajectoryStream:
        """Return the same for ``async for``."""
        return AsyncTrajectoryStream(self.engine, generation_request(prompt, self.config, **options), timeout)

    # --- a given text ---

    def score(
        self,
        prompt: PromptLike,
        completion: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        timeout: float | None = None,
        use_cache: bool = True,
    ) -> TrajectoryAnalysis:
        """Read a text that is there already, as if the model had written it (teacher forcing).

        Args:
            prompt: what came before it. Messages that end with one of the assistant need no completion.
            completion: the text to score.
            token_ids: its tokens, where they are known: a text that is cut anew may give others.
            timeout: seconds for the whole call.
            use_cache: an answer that is there may be returned.

        Raises:
            InputError: the prompt or the text cannot be worked on, or the backend cannot score.
            CertError: as `analyze`.
        """
        return self.engine.run(self._score_call(prompt, completion, token_ids, timeout, use_cache))

    async def score_async(
        self,
        prompt: PromptLike,
        completion: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        timeout: float | None = None,
        use_cache: bool = True,
    ) -> TrajectoryAnalysis:
        """Do what `score` does while other tasks run."""
        call = self._score_call(prompt, completion, token_ids, timeout, use_cache)
        return await self.engine.run_async(call)

    # --- many ---

    @overload
    def analyze_batch(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = ...,
        return_exceptions: Literal[False] = ...,
        on_done: OnDone | None = ...,
        **options: Any,
    ) -> list[TrajectoryAnalysis]: ...

    @overload
    def analyze_batch(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = ...,
        return_exceptions: Literal[True],
        on_done: OnDone | None = ...,
        **options: Any,
    ) -> list[BatchOutcome]: ...

    def analyze_batch(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        on_done: OnDone | None = None,
        **options: Any,
    ) -> list[TrajectoryAnalysis] | list[BatchOutcome]:
        """Analyse many prompts, in as few batches as the backend can.

        Args:
            prompts: each as `analyze` takes it.
            timeout: seconds for the whole call. What is not done then fails by itself, with what was
                measured of it; what is done is kept.
            return_exceptions: put the error of an item in its place instead of raising `BatchError`.
            on_done: called with the place and the outcome of each item as soon as it is there.
            options: those of `analyze`, for every item.

        Raises:
            BatchError: some items failed, after all were done; ``results`` has every outcome in order.
        """
        prompts = _as_list(prompts)
        use_cache = bool(options.pop("use_cache", True))
        outcomes: list[Any] = [None] * len(prompts)
        calls, places = [], []
        deadline = _deadline(timeout)
        for place, prompt in enumerate(prompts):
            try:
                request = generation_request(prompt, self.config, **options)
            except CertError as error:
                outcomes[place] = _told(on_done, place, error)
                continue
            control = Control(timeout=_left(deadline))
            calls.append(self.engine.call(request, control, use_cache=use_cache))
            places.append(place)
        for index, outcome in self.engine.run_all(calls) if calls else ():
            outcomes[places[index]] = _told(on_done, places[index], outcome)
        return _results(outcomes, return_exceptions)

    async def analyze_batch_async(
        self,
        prompts: Iterable[PromptLike],
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        on_done: OnDone | None = None,
        **options: Any,
    ) -> list[TrajectoryAnalysis] | list[BatchOutcome]:
        """Do what `analyze_batch` does while other tasks run."""
        prompts = _as_list(prompts)
        deadline = _deadline(timeout)
        outcomes: list[Any] = [None] * len(prompts)
        async with self.resource.acquire_async() as backend:
            slots = asyncio.Semaphore(backend.window)

            async def analyse(place: int) -> None:
                async with slots:
                    try:
                        outcome: BatchOutcome = await self.analyze_async(
                            prompts[place], timeout=_left(deadline), **options
                        )
                    except CertError as error:
                        outcome = error
                outcomes[place] = _told(on_done, place, outcome)

            async with asyncio.TaskGroup() as group:
                for place in range(len(prompts)):
                    group.create_task(analyse(place))
        return _results(outcomes, return_exceptions)

    # --- inside ---

    def _score_call(
        self,
        prompt: PromptLike,
        completion: str | None,
        token_ids: Sequence[int] | None,
        timeout: float | None,
        use_cache: bool,
    ) -> Call:
        request = score_request(prompt, self.config, completion=completion, token_ids=token_ids)
        return self.engine.call(request, Control(timeout=timeout), use_cache=use_cache)

    def _infer(self, timeout: float) -> Finding:
        try:
            analysis = self.analyze("1", max_new_tokens=1, timeout=timeout, use_cache=False)
        except CertError as error:
            return Finding("unhealthy", error.code, error.message)
        if analysis.generation.stop_step is None and analysis.verdict == "not_measured":
            return Finding("unhealthy", "not_measured", "one token was generated and not measured")
        return Finding("healthy")


def _as_list(prompts: object) -> list[Any]:
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable):
        raise ConfigurationError(
            f"a batch is a list of prompts, not {type(prompts).__name__}", hint="analyze() takes one prompt"
        )
    return list(prompts)


# A deadline that is over leaves the rest no time, which is not the same as no limit.
_NO_TIME = 1e-9


def _deadline(timeout: float | None) -> float | None:
    Control(timeout=timeout)  # refuses what is out of range
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(_NO_TIME, deadline - time.monotonic())


def _told(on_done: OnDone | None, place: int, outcome: BatchOutcome) -> BatchOutcome:
    if on_done is not None:
        on_done(place, outcome)
    return outcome


def _results(outcomes: list[Any], return_exceptions: bool) -> list[Any]:
    failed = [outcome for outcome in outcomes if isinstance(outcome, CertError)]
    if not failed or return_exceptions:
        return outcomes
    error = BatchError(
        f"{len(failed)} of {len(outcomes)} items failed; the first: {failed[0].message}",
        hint="look at .results, or call with return_exceptions=True",
        context={"failed": len(failed), "items": len(outcomes), "codes": sorted({e.code for e in failed})},
    )
    error.results = outcomes
    raise error from failed[0]


def _result(name: str, finding: Finding, seconds: float) -> CheckResult:
    return CheckResult(name, finding.status, True, finding.code, finding.detail, seconds)
