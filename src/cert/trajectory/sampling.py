"""Several sampled answers to one prompt."""

from __future__ import annotations

import asyncio
from typing import Any

from cert.backends.base import GenerationRequest
from cert.backends.control import Control
from cert.core.errors import CertError, ConfigurationError
from cert.trajectory.batches import deadline_of, results_of, time_left
from cert.trajectory.engine import Call
from cert.trajectory.life import MonitorLife
from cert.trajectory.requests import PromptLike, generation_request
from cert.trajectory.samples import (
    Sameness,
    SamplesAnalysis,
    as_equivalence,
    cluster_answers,
    cluster_answers_async,
    sample_seeds,
    synchronous_rule,
)

__all__ = ["Sampler"]


class Sampler(MonitorLife):
    """The part of a monitor that samples."""

    def analyze_samples(
        self,
        prompt: PromptLike,
        n: int = 10,
        *,
        sameness: Sameness | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        sampling_top_k: int = 0,
        seed: int | None = None,
        max_new_tokens: int | None = None,
        timeout: float | None = None,
    ) -> SamplesAnalysis:
        """Sample n answers and say how far they agree: self-consistency and semantic entropy.

        The defaults sample from the model's own distribution, which the entropies are about; a lower
        temperature, top-p or top-k measures another one, and says so in ``sampling`` of each answer.

        Args:
            prompt: as `analyze` has it.
            n: number of answers, up to 1,000.
            sameness: what tells whether two answers say the same: an `Equivalence`, an `Entailment` model or
                a `Judge` of `cert.answers`. ``None`` compares normalised texts, which suits short answers.
            temperature: of the sampling, above 0.
            top_p: nucleus sampling; 1 is off.
            sampling_top_k: sampling among the k likeliest; 0 is off.
            seed: makes the answers repeatable; the first m of n answers are those of m.
            max_new_tokens: of each answer; ``None`` takes the config's value.
            timeout: seconds for the answers together; comparing them comes on top.

        Raises:
            ConfigurationError: an n or an option out of range, or an asynchronous rule.
            BatchError: an answer failed; ``results`` has the others.
            CertError: the answers cannot be compared.
        """
        rule = synchronous_rule(sameness)
        requests = self._sample_requests(prompt, n, seed, max_new_tokens, temperature, top_p, sampling_top_k)
        deadline_of(timeout)  # refuses what is out of range
        outcomes: list[Any] = [None] * len(requests)
        with self.resource.acquire():  # loading takes no part of the time
            deadline = deadline_of(timeout)
            calls = [self._sample_call(request, deadline, seed) for request in requests]
            for place, outcome in self.engine.run_all(calls):
                outcomes[place] = outcome
        analyses = results_of(outcomes, return_exceptions=False)
        return SamplesAnalysis.of(analyses, cluster_answers(requests[0].prompt, analyses, rule))

    async def analyze_samples_async(
        self,
        prompt: PromptLike,
        n: int = 10,
        *,
        sameness: Sameness | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        sampling_top_k: int = 0,
        seed: int | None = None,
        max_new_tokens: int | None = None,
        timeout: float | None = None,
    ) -> SamplesAnalysis:
        """Do what `analyze_samples` does while other tasks run; asynchronous rules are welcome."""
        rule = as_equivalence(sameness)
        requests = self._sample_requests(prompt, n, seed, max_new_tokens, temperature, top_p, sampling_top_k)
        deadline = deadline_of(timeout)
        outcomes = await asyncio.gather(
            *(
                self.engine.run_async(
                    self.engine.call(
                        request,
                        Control(timeout=time_left(deadline)),
                        use_cache=seed is not None,
                        watched=False,
                    )
                )
                for request in requests
            ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, CertError):
                raise outcome
        analyses = results_of(list(outcomes), return_exceptions=False)
        clustering = await cluster_answers_async(requests[0].prompt, analyses, rule)
        return SamplesAnalysis.of(analyses, clustering)

    def _sample_requests(
        self,
        prompt: PromptLike,
        n: int,
        seed: int | None,
        max_new_tokens: int | None,
        temperature: float,
        top_p: float,
        sampling_top_k: int,
    ) -> list[GenerationRequest]:
        if not temperature > 0.0:
            raise ConfigurationError("samples need a temperature above 0: greedy answers are all the same")
        return [
            generation_request(
                prompt,
                self.config,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                sampling_top_k=sampling_top_k,
                seed=one,
            )
            for one in sample_seeds(n, seed)
        ]

    def _sample_call(self, request: GenerationRequest, deadline: float | None, seed: int | None) -> Call:
        return self.engine.call(
            request, Control(timeout=time_left(deadline)), use_cache=seed is not None, watched=False
        )
