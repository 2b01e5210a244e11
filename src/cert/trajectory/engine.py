"""From a request to an analysis: first in the cache, else on the backend, always within its time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from cert.backends.base import Backend, Generation, GenerationRequest, Sampling, ScoreRequest
from cert.backends.control import Control, in_listener
from cert.backends.detached import detached
from cert.backends.many import fly, outcome_of
from cert.core.errors import (
    CertError,
    ConfigurationError,
    GenerationCancelledError,
    GenerationTimeoutError,
)
from cert.core.events import CacheAsked, EventHub, GenerationFinished, default_hub
from cert.core.resources import ManagedResource
from cert.trajectory.analysis import analyze_generation
from cert.trajectory.cache import Hit, Lead, LeaderGoneError, SingleFlightCache
from cert.trajectory.calibration.alarm import StreamingAlarm, alarm_of
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.calibration.watch import GateWatch
from cert.trajectory.types import EarlyStop, TrajectoryAnalysis, TrajectoryConfig

__all__ = ["Call", "HamiltonianEngine", "begin_async", "measure_partial", "refuse_unseen"]

_CACHE = "analyses"
# Characters that take longer to encode than an event loop should stand still for.
_LONG = 2_000


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One request with what steers it.

    Attributes:
        cacheable: whether its result may be one that is there, and may be kept.
        group: of the answer, for a calibrated gate with groups.
        alarm: of a gate that may end the generation early.
        watched: its score is one of those that show whether the gate's promise still stands.
    """

    request: GenerationRequest | ScoreRequest
    control: Control
    cacheable: bool
    group: str | None = None
    alarm: StreamingAlarm | None = None
    watched: bool = True
    begun: float = field(default_factory=time.perf_counter)


class HamiltonianEngine:
    """Runs calls on a backend, each answer made once, and turns generations into analyses.

    The key of the cache is everything that changes the answer: the model with its revision, backend, device
    and dtype; prompt or messages; limits, sampling and seed; K, every setting of the config, the gate
    and the group. A sample without a seed is another one each time, so it is not kept, unless
    ``cache_unseeded`` says so.

    Args:
        resource: the backend, loaded when the first call needs it.
        config: thresholds and settings.
        cache_size: analyses that are kept.
        cache_unseeded: keep samples without a seed too: a repeated question then gets the first sample.
        hub: hears of every analysis; its required sinks may refuse one.
        gate: decides in place of the config's thresholds.
        gate_watch: hears the scores of live answers, and tells whether the gate's promise still stands.
    """

    def __init__(
        self,
        resource: ManagedResource[Backend],
        config: TrajectoryConfig,
        *,
        cache_size: int = 1000,
        cache_unseeded: bool = False,
        hub: EventHub | None = None,
        gate: CalibratedGate | None = None,
        gate_watch: GateWatch | None = None,
    ) -> None:
        self.gate_watch = gate_watch
        self.resource = resource
        self.config = config
        self.gate = gate
        self.cache: SingleFlightCache[TrajectoryAnalysis] = SingleFlightCache(cache_size)
        self._cache_unseeded = cache_unseeded
        self._hub = hub or default_hub()

    def call(
        self,
        request: GenerationRequest | ScoreRequest,
        control: Control,
        *,
        use_cache: bool = True,
        group: str | None = None,
        early_stop: bool = False,
        watched: bool = True,
    ) -> Call:
        """Return a call, which may be run once.

        Args:
            request: what is asked.
            control: ends it from outside; with ``early_stop`` it gets the gate's alarm.
            use_cache: the result may be one that is there, and may be kept.
            group: of the answer, for a gate with groups.
            early_stop: the alarm of the gate ends the generation.
            watched: its score is one of those that show whether the gate's promise still stands.

        Raises:
            ConfigurationError: the request is none that the gate's certificate covers, or there is no alarm
                to stop at.
        """
        if self.gate is not None:
            self.gate.match.refuse_request(request)
        own = isinstance(request, GenerationRequest) and not (
            request.sampling.greedy or request.sampling.seed is not None
        )
        alarm = None
        if early_stop:
            alarm = control.follower = alarm_of(self.gate, group, self.config.signal_options)
        cacheable = use_cache and (self._cache_unseeded or not own)
        return Call(request, control, cacheable, group, alarm, watched)

    def run(self, call: Call) -> TrajectoryAnalysis:
        """Run one call.

        Raises:
            GenerationTimeoutError: with the analysis of what was generated until then as ``partial``.
            CertError: it cannot be worked on, failed, or a required sink refuses the result.
        """
        with self.resource.acquire() as backend:
            call.control.restart()
            flight = _Flight(self, backend, call)
            flight.take_off()
            while flight.future is not None:
                flight.land(outcome_of(flight.future, call.control))
            result = self._current(flight.result)
            self._hub.deliver(self._finished(result, call))
            return result

    async def run_async(self, call: Call) -> TrajectoryAnalysis:
        """Run one call while other tasks run; a task that is cancelled ends its generation."""
        async with self.resource.acquire_async() as backend:
            call.control.restart()
            flight = _Flight(self, backend, call)
            await flight.take_off_async()
            while flight.future is not None:
                flight.land(await _outcome_of(flight.future, call.control))
            result = self._current(flight.result)
            await self._hub.deliver_async(self._finished(result, call))
            return result

    def run_all(
        self, calls: Iterable[Call]
    ) -> Generator[tuple[int, TrajectoryAnalysis | CertError], None, None]:
        """Run many, yielding each one's place and outcome as soon as it is there.

        Calls are taken as there is room for them; their time runs from when they were made.
        """
        begun: dict[int, Call] = {}

        def begin(numbered: tuple[int, Call]) -> _Flight:
            place, begun[place] = numbered
            flight = _Flight(self, backend, numbered[1])
            flight.take_off()
            return flight

        with (
            self.resource.acquire() as backend,
            contextlib.closing(fly(enumerate(calls), begin, backend.window)) as outcomes,
        ):
            for place, outcome in outcomes:
                yield place, self._delivered(outcome, begun.pop(place))

    def finish(self, generation: Generation, call: Call) -> TrajectoryAnalysis:
        """Analyse a generation that was run outside the cache, and tell of it."""
        analysis = self._current(self.measured(generation, call))
        self._hub.deliver(self._finished(analysis, call))
        return analysis

    async def finish_async(self, generation: Generation, call: Call) -> TrajectoryAnalysis:
        """Do what `finish` does, awaiting required sinks."""
        analysis = self._current(self.measured(generation, call))
        await self._hub.deliver_async(self._finished(analysis, call))
        return analysis

    def analysed(self, generation: Generation, call: Call) -> TrajectoryAnalysis:
        """Return the analysis of what a call gave.

        Raises:
            ConfigurationError: it was not made as the gate's certificate says.
        """
        limit = call.request.max_new_tokens if isinstance(call.request, GenerationRequest) else None
        return analyze_generation(generation, self.config, self.gate, group=call.group, max_new_tokens=limit)

    def measured(self, generation: Generation, call: Call) -> TrajectoryAnalysis:
        """Return the analysis of an answer that came to its end, or to the alarm of the gate; it is watched.

        Raises:
            ConfigurationError: as `analysed`.
        """
        analysis = self.analysed(generation, call)
        stopped, alarm = generation.finish_reason == "early_stop", call.alarm
        if stopped and alarm is not None and alarm.alarm_at is not None:
            assert isinstance(call.request, GenerationRequest)
            stop = EarlyStop(alarm.alarm_at, len(generation.steps), call.request.max_new_tokens)
            analysis = replace(analysis, early_stop=stop)
        live = isinstance(call.request, GenerationRequest) and call.watched
        # Of an answer that somebody ended for reasons of his own, the score is that of a part.
        if self.gate_watch is not None and live and (not stopped or analysis.early_stop is not None):
            self.gate_watch.observe(_score(self.gate_watch.gate, analysis))
        return analysis

    def _current(self, analysis: TrajectoryAnalysis) -> TrajectoryAnalysis:
        """Return an analysis as it reads now: one that was kept may be of a promise that is void since."""
        void = None if self.gate_watch is None else self.gate_watch.void
        if void is None:
            return analysis
        return replace(analysis, decision=analysis.decision.without_promise(void))

    def key(
        self, backend: Backend, request: GenerationRequest | ScoreRequest, group: str | None = None
    ) -> Hashable:
        """Return the key of the cache."""
        if isinstance(request, GenerationRequest) and request.sampling.greedy:
            request = replace(request, sampling=Sampling())  # nothing else of it plays a part
        gate = None if self.gate is None else (self.gate.key, group)
        return (backend.identity, request, self.config, gate)

    def asked(self, outcome: str) -> None:
        """Tell of one question to the cache."""
        self._hub.emit(CacheAsked(cache=_CACHE, outcome=outcome))

    def _delivered(
        self, outcome: TrajectoryAnalysis | CertError, call: Call
    ) -> TrajectoryAnalysis | CertError:
        if isinstance(outcome, TrajectoryAnalysis):
            outcome = self._current(outcome)
            try:
                self._hub.deliver(self._finished(outcome, call))
            except CertError as refusal:
                return detached(refusal, noted=False)
        return outcome

    def _finished(self, analysis: TrajectoryAnalysis, call: Call) -> GenerationFinished:
        return GenerationFinished(
            model=analysis.model_name,
            verdict=analysis.verdict,
            tokens=analysis.generation_steps,
            seconds=time.perf_counter() - call.begun,
            stages=() if analysis.from_cache else analysis.stages,
            cached=analysis.from_cache,
            calibrated=analysis.decision.calibrated,
        )


class _Flight:
    """One call on its way: answered by the cache, following another call, or on the backend."""

    def __init__(self, engine: HamiltonianEngine, backend: Backend, call: Call) -> None:
        self._engine = engine
        self._backend = backend
        self._call = call
        self._lead: Lead[TrajectoryAnalysis] | None = None
        self.control = call.control
        self.future: Future[Any] | None = None
        self._result: TrajectoryAnalysis | None = None

    @property
    def result(self) -> TrajectoryAnalysis:
        """The analysis, once there is nothing to wait for."""
        assert self._result is not None
        return self._result

    def take_off(self) -> None:
        """Find the answer, or somebody who makes it, or begin to make it."""
        try:
            if not self._answered():
                self.future = self._backend.prepare(self._call.request, self.control)()
        except BaseException as error:
            self._fail(error)
            raise

    async def take_off_async(self) -> None:
        """Do the same; a long text is encoded while other tasks run."""
        try:
            if not self._answered():
                self.future = await begin_async(self._backend, self._call.request, self.control)
        except BaseException as error:
            self._fail(error)
            raise

    def land(self, outcome: Generation | TrajectoryAnalysis | BaseException) -> None:
        """Take what the future gave."""
        self.future = None
        if isinstance(outcome, LeaderGoneError):
            self.take_off()
        elif isinstance(outcome, TrajectoryAnalysis):
            self._result = outcome
        elif isinstance(outcome, Generation):
            self._keep(outcome)
        else:
            if isinstance(outcome, GenerationTimeoutError | GenerationCancelledError):
                measure_partial(outcome, self._engine, self._call)
            self._fail(outcome)
            try:
                raise outcome
            finally:
                del outcome  # its traceback holds this frame

    def _answered(self) -> bool:
        """Ask the cache: whether the answer is there, or somebody makes it."""
        if not self._call.cacheable:
            self._engine.asked("bypassed")
            return False
        claim = self._engine.cache.claim(
            self._engine.key(self._backend, self._call.request, self._call.group)
        )
        if isinstance(claim, Hit):
            self._engine.asked("hit")
            self._result = claim.value
            return True
        if isinstance(claim, Lead):
            self._lead = claim
            self._engine.asked("miss")
            return False
        if in_listener():
            # Whoever makes it may be the very generation that this listener holds up.
            claim.future.cancel()
            self._engine.asked("bypassed")
            return False
        self._engine.asked("shared")
        self.future = claim.future
        return True

    def _keep(self, generation: Generation) -> None:
        try:
            self._result = self._engine.measured(generation, self._call)
        except BaseException as error:
            self._fail(error)
            raise
        lead, self._lead = self._lead, None
        if lead is None:
            return
        if generation.finish_reason == "early_stop":  # this caller's own wish, not the answer
            lead.fail(GenerationCancelledError("it was stopped early"))
        else:
            lead.fulfil(replace(self._result, from_cache=True))  # as all others get it

    def _fail(self, error: BaseException) -> None:
        lead, self._lead = self._lead, None
        if lead is not None:
            lead.fail(error, own=self.control.on_step is not None)


async def _outcome_of(future: Future[Any], control: Control) -> Any:
    try:
        return await control.wait_async(future)
    except BaseException as error:
        return error
    finally:
        del future  # as in `outcome_of`


async def begin_async(
    backend: Backend, request: GenerationRequest | ScoreRequest, control: Control
) -> Future[Generation]:
    """Begin a request; a long text is encoded on another thread, while other tasks run."""
    if _chars(request) > _LONG:
        begin = await asyncio.to_thread(backend.prepare, request, control)
    else:
        begin = backend.prepare(request, control)
    return begin()


def _chars(request: GenerationRequest | ScoreRequest) -> int:
    texts = [request.prompt] if isinstance(request.prompt, str) else [m.content for m in request.prompt]
    if isinstance(request, ScoreRequest):
        texts.append(request.completion or "")
    return sum(map(len, texts))


def _score(gate: CalibratedGate, analysis: TrajectoryAnalysis) -> float:
    if analysis.early_stop is None:
        return gate.score.of(analysis.signals)
    return analysis.decision.checks[0].lower  # also where tokens after the alarm were not measured


def measure_partial(
    error: GenerationTimeoutError | GenerationCancelledError, engine: HamiltonianEngine, call: Call
) -> None:
    """Analyse what was generated until the end came."""
    if isinstance(error.partial, Generation):
        error.partial = engine.analysed(error.partial, call)


def refuse_unseen(backend: Backend, config: TrajectoryConfig, gate: CalibratedGate | None = None) -> None:
    """Refuse a backend that cannot show what config and gate ask for, before the first request.

    Raises:
        ConfigurationError: it holds records alone, no log-probabilities, fewer candidates than K, or a
            threshold that this vocabulary can never exceed; or it is not what the gate's certificate covers.
    """
    capabilities, name = backend.capabilities, backend.identity.name
    if not (capabilities.generates or capabilities.scores):
        raise ConfigurationError(
            f"'{name}' neither generates nor scores, so that there is nothing to watch",
            hint="cert.trajectory.stored.analyze_stored(path) analyses what is stored",
            context={"model": name, "missing": "generates"},
        )
    if capabilities.logprobs == "none":
        raise ConfigurationError(
            f"'{name}' gives no log-probabilities, so that nothing can be measured",
            hint="switch them on at the server, or choose another model",
            context={"model": name},
        )
    most = capabilities.max_top_logprobs
    if capabilities.logprobs != "full" and most is not None and config.top_k > most:
        raise ConfigurationError(
            f"'{name}' gives at most {most} candidates a token, and top_k is {config.top_k}",
            hint=f"TrajectoryConfig(top_k={most})",
            context={"model": name, "top_k": config.top_k, "most": most},
        )
    if gate is None:
        config.check_vocabulary(backend.identity.vocab_size)
    else:
        gate.refuse_backend(backend)
        gate.match.refuse(Conditions(top_k=config.top_k), vocab_size=backend.identity.vocab_size)
