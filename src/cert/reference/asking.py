"""Put prompts to a backend in batches of similar length, and read what comes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from cert.backends.base import Backend, Generation, GenerationRequest, Message, Sampling
from cert.core.errors import CertError, GenerationError

BATCH: Final = 64
ANSWER_TOKENS: Final = 16
"""More than the longest value has, with its stop token."""
GREEDY: Final = Sampling()
TEMPERATURE_ONE: Final = Sampling(temperature=1.0, top_p=1.0, top_k=0)


class Asker:
    """Asks one model many things, with a seed of its own for every sample.

    ``advance`` is called with the number of prompts answered, for a progress bar.
    """

    def __init__(self, backend: Backend, seed: int, advance: Callable[[int], None] | None = None) -> None:
        self._backend = backend
        self._seed = seed * 10_000_000
        self._advance = advance or (lambda _: None)

    def chat(self, messages: Sequence[str], sampling: Sampling = GREEDY) -> list[Generation]:
        """Answer each user message in a chat of its own."""
        return self._generate([(Message("user", message),) for message in messages], sampling)

    def texts(self, messages: Sequence[str], sampling: Sampling) -> list[str]:
        """Answer each user message and return the bare texts."""
        return [generation.text.strip() for generation in self.chat(messages, sampling)]

    def continue_text(self, prefixes: Sequence[str]) -> list[Generation]:
        """Continue each text greedily."""
        return self._generate(prefixes, GREEDY)

    def p_true(self, messages: Sequence[str], true: str, false: str) -> list[float]:
        """Probability of the one reply among the two, NaN where either is not among the top candidates."""
        return [_share(generation, f" {true}", f" {false}") for generation in self.chat(messages)]

    def _generate(self, prompts: Sequence[str | tuple[Message, ...]], sampling: Sampling) -> list[Generation]:
        answers: dict[int, Generation] = {}
        order = sorted(range(len(prompts)), key=lambda place: _size(prompts[place]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            requests = [
                GenerationRequest(prompts[place], ANSWER_TOKENS, self._seeded(sampling)) for place in places
            ]
            for place, outcome in zip(places, self._backend.generate_batch(requests), strict=True):
                if isinstance(outcome, CertError):
                    raise GenerationError(f"the evaluation cannot go on: {outcome}") from outcome
                answers[place] = outcome
            self._advance(len(places))
        return [answers[place] for place in range(len(prompts))]

    def _seeded(self, sampling: Sampling) -> Sampling:
        if sampling.greedy:
            return sampling
        self._seed += 1
        return replace(sampling, seed=self._seed)


def _size(prompt: str | tuple[Message, ...]) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(message.content) for message in prompt)


def _share(generation: Generation, first: str, second: str) -> float:
    """p(first) / (p(first) + p(second)) at the first generated token."""
    if not len(generation.steps):
        return math.nan
    candidates = zip(
        generation.steps.top_ids[0].tolist(), generation.steps.top_logprobs[0].tolist(), strict=True
    )
    found = {generation.vocabulary.text(token): math.exp(logprob) for token, logprob in candidates}
    if first not in found or second not in found:
        return math.nan
    return found[first] / (found[first] + found[second])


__all__ = ["GREEDY", "TEMPERATURE_ONE", "Asker"]
