"""The Hamiltonian monitor: generate with a model and say how far each answer can be trusted.

The name is a picture, not physics: surprisal is drawn as a potential and entropy as a kinetic term, and
their sum as an energy. Every verdict comes from the signals of `cert.signals`, which are the field's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cert.backends.base import Backend
from cert.backends.control import Control, OnStep
from cert.backends.loading import REFERENCE, LoadOptions, peek_vocab_size
from cert.backends.opening import ServerOptions, is_server, open_backend
from cert.core.errors import ConfigurationError
from cert.core.events import EventHub
from cert.trajectory.batches import Batches
from cert.trajectory.calibration.gate import CalibratedGate, GateLike, gate_of
from cert.trajectory.calibration.settings import config_of, refuse_settings
from cert.trajectory.calibration.watch import GateWatch
from cert.trajectory.engine import Call, HamiltonianEngine, refuse_unseen
from cert.trajectory.requests import PromptLike, generation_request, score_request
from cert.trajectory.resources import GivenBackend, HamiltonianModelResource
from cert.trajectory.sampling import Sampler
from cert.trajectory.streaming import AsyncTrajectoryStream, TrajectoryStream
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["HamiltonianMonitor", "PromptLike"]


class HamiltonianMonitor(Batches, Sampler):
    """Watches generations of one model, for any number of threads and tasks at once.

    Args:
        model_name: ``reference`` (the default, it comes with the package), a model directory, a hub id, or
            ``openai:MODEL@URL`` for a server that speaks the OpenAI API.
        preload: load the model, or ask the server what it can show, now and not at the first analysis.
        config: thresholds and settings.
        options: how a model is loaded into this process and what is allowed to be loaded.
        server: how a model on a server is asked: its key, dialect, limits, retries.
        gate: a certificate, its file, or a `CalibratedGate`: it decides in place of the config's thresholds.
            Without a ``config`` the settings are those that the certificate was calibrated with.
        gate_watch: goes on watching the promise of this gate from where it was; a new one by default.
        backend: a backend that is ready; then ``model_name``, ``preload`` and ``options`` play no part.
        cache_size: analyses that are kept; a repeated greedy or seeded question is answered from them.
        cache_unseeded: keep samples without a seed too.
        hub: hears of loads, analyses and their verdicts; the process's own by default.

    Raises:
        ConfigurationError: a threshold that this model could never exceed, more candidates than the
            backend shows, a backend that holds records alone, or a server's name or options that cannot be
            right. What only the server itself can tell, such as that it has no log-probabilities, is told
            when it is first asked, before any prompt is sent to it: now with ``preload``. Of a gate: a model,
            backend or setting that its certificate does not cover, as soon as it is known.
        InputError: the gate's file cannot be read, is no certificate, or was changed.
        ResourceError: the model is not there, not safe or not loadable. Told now for a directory, and at
            the first use for a hub id (now with ``preload``).
        DependencyMissingError: the package for models on servers is not installed.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] | None = None,
        preload: bool = False,
        *,
        config: TrajectoryConfig | None = None,
        options: LoadOptions | None = None,
        server: ServerOptions | None = None,
        backend: Backend | None = None,
        cache_size: int = 1000,
        cache_unseeded: bool = False,
        hub: EventHub | None = None,
        gate: GateLike | None = None,
        gate_watch: GateWatch | None = None,
    ) -> None:
        self.gate = gate_of(gate)
        self.gate_watch = _watch_of(self.gate, gate_watch, hub)
        self.config = config or config_of(self.gate)
        named = REFERENCE if model_name is None else os.fspath(model_name)
        self.model_name = backend.identity.name if backend else named
        refuse_settings(self.gate, self.model_name, self.config)
        if backend is not None:
            refuse_unseen(backend, self.config, self.gate)
            self.resource = GivenBackend(backend, hub=hub)
        else:
            if is_server(named):
                server = server or ServerOptions(top_logprobs=max(20, self.config.top_k))
                self._check_unasked(named, options, server)
            elif self.gate is None:
                self.config.check_vocabulary(peek_vocab_size(named, options or LoadOptions()))
            self.resource = HamiltonianModelResource(
                named,
                options,
                server=server,
                hub=hub,
                check=lambda loaded: refuse_unseen(loaded, self.config, self.gate),
            )
        self.engine = HamiltonianEngine(
            self.resource,
            self.config,
            cache_size=cache_size,
            cache_unseeded=cache_unseeded,
            hub=hub,
            gate=self.gate,
            gate_watch=self.gate_watch,
        )
        if self.gate_watch is not None:
            self.gate_watch.tell_standing()
        if preload:
            self.load()

    def _check_unasked(self, name: str, options: LoadOptions | None, server: ServerOptions) -> None:
        """Refuse what cannot be right whatever the server says."""
        backend = open_backend(name, options, server=server)
        try:
            if not server.probe:
                refuse_unseen(backend, self.config, self.gate)
            elif self.config.top_k > server.top_logprobs:
                raise ConfigurationError(
                    f"top_k is {self.config.top_k}, and the server is asked for {server.top_logprobs}",
                    hint=f"ServerOptions(top_logprobs={self.config.top_k})",
                )
            if self.gate is None:
                self.config.check_vocabulary(server.vocab_size)
        finally:
            backend.close()

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
        group: str | None = None,
        early_stop: bool = False,
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
            group: which of the gate's groups the answer is of, for a certificate with groups.
            early_stop: end the generation at the alarm of a gate for the goal ``streaming``. The analysis
                then fails, has ``early_stop``, and is not kept. An answer that is there is returned whole.

        Raises:
            InputError: the prompt is no text, empty, over the limit or cannot be encoded.
            ConfigurationError: an option outside its range, or one that the gate's certificate does not
                cover; an early stop without such a gate.
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
        call = self.engine.call(request, control, use_cache=use_cache, group=group, early_stop=early_stop)
        return self.engine.run(call)

    async def analyze_async(
        self,
        prompt: PromptLike,
        *,
        timeout: float | None = None,
        use_cache: bool = True,
        on_step: OnStep | None = None,
        group: str | None = None,
        early_stop: bool = False,
        **options: Any,
    ) -> TrajectoryAnalysis:
        """Do what `analyze` does, with its arguments, while other tasks run.

        Tasks at the same time share batches. A task that is cancelled ends its generation within a step.
        """
        request = generation_request(prompt, self.config, **options)
        control = Control(timeout=timeout, on_step=on_step)
        call = self.engine.call(request, control, use_cache=use_cache, group=group, early_stop=early_stop)
        return await self.engine.run_async(call)

    def stream(
        self,
        prompt: PromptLike,
        *,
        timeout: float | None = None,
        group: str | None = None,
        early_stop: bool = False,
        **options: Any,
    ) -> TrajectoryStream:
        """Return an iterator over the tokens as they come, each with its signals.

        Args:
            prompt: as `analyze` has it; streams go past the cache.
            timeout: seconds for the whole stream.
            group: as in `analyze`.
            early_stop: as in `analyze`. Tokens have ``alarm`` with and without it.
            options: how to generate, as in `analyze`: ``max_new_tokens``, ``temperature``, ``top_p``,
                ``sampling_top_k``, ``seed``.

        Example:
            ``with monitor.stream("…") as stream: for token in stream: print(token.text)``; then
            ``stream.analysis`` is the whole.
        """
        request = generation_request(prompt, self.config, **options)
        return TrajectoryStream(self.engine, request, timeout, group=group, early_stop=early_stop)

    def stream_async(
        self,
        prompt: PromptLike,
        *,
        timeout: float | None = None,
        group: str | None = None,
        early_stop: bool = False,
        **options: Any,
    ) -> AsyncTrajectoryStream:
        """Return the same for ``async for``."""
        request = generation_request(prompt, self.config, **options)
        return AsyncTrajectoryStream(self.engine, request, timeout, group=group, early_stop=early_stop)

    # --- a given text ---

    def score(
        self,
        prompt: PromptLike,
        completion: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        timeout: float | None = None,
        use_cache: bool = True,
        group: str | None = None,
    ) -> TrajectoryAnalysis:
        """Read a text that is there already, as if the model had written it (teacher forcing).

        Args:
            prompt: what came before it. Messages that end with one of the assistant need no completion.
            completion: the text to score.
            token_ids: its tokens, where they are known: a text that is cut anew may give others.
            timeout: seconds for the whole call.
            use_cache: an answer that is there may be returned.
            group: as in `analyze`.

        Raises:
            InputError: the prompt or the text cannot be worked on, or the backend cannot score.
            ConfigurationError: there is a gate, and how the text was made is not stated to it: see
                `cert.trajectory.calibration.gate.CalibratedGate`.
            CertError: as `analyze`.
        """
        return self.engine.run(self._score_call(prompt, completion, token_ids, timeout, use_cache, group))

    async def score_async(
        self,
        prompt: PromptLike,
        completion: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        timeout: float | None = None,
        use_cache: bool = True,
        group: str | None = None,
    ) -> TrajectoryAnalysis:
        """Do what `score` does while other tasks run."""
        call = self._score_call(prompt, completion, token_ids, timeout, use_cache, group)
        return await self.engine.run_async(call)

    # --- the promise of the gate ---

    def report_label(
        self, answer: TrajectoryAnalysis | float, correct: bool, group: str | None = None
    ) -> None:
        """Tell whether an answer of this monitor turned out right: labels can refute the gate's promise.

        Args:
            answer: its analysis, or its score where that is all that was kept.
            correct: whether it is right.
            group: of the answer, for a certificate with groups.

        Raises:
            ConfigurationError: there is no gate with a certificate.
            InputError: the label is no truth value, or the certificate does not know the group.
        """
        if self.gate is None or self.gate_watch is None:
            raise ConfigurationError("without a calibrated gate there is no promise that labels could refute")
        score = self.gate.score.of(answer.signals) if isinstance(answer, TrajectoryAnalysis) else answer
        self.gate_watch.observe_label(float(score), correct, group)

    # --- inside ---

    def _score_call(
        self,
        prompt: PromptLike,
        completion: str | None,
        token_ids: Sequence[int] | None,
        timeout: float | None,
        use_cache: bool,
        group: str | None,
    ) -> Call:
        request = score_request(prompt, self.config, completion=completion, token_ids=token_ids)
        return self.engine.call(request, Control(timeout=timeout), use_cache=use_cache, group=group)


def _watch_of(gate: CalibratedGate | None, watch: GateWatch | None, hub: EventHub | None) -> GateWatch | None:
    if gate is None:
        if watch is not None:
            raise ConfigurationError("a watch of a gate needs the gate", hint="HamiltonianMonitor(gate=…)")
        return None
    if watch is None:
        return GateWatch(gate, hub=hub)
    if watch.gate.certificate.id != gate.certificate.id:
        raise ConfigurationError("the watch is of another certificate than the gate")
    return watch
