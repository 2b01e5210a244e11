"""What a server cannot do, said before it is asked."""

from __future__ import annotations

from cert.backends.base import GenerationRequest, Prompt, ScoreRequest
from cert.backends.openai_server.probe import Profile
from cert.core.errors import ConfigurationError, InputError

__all__ = ["check_generation", "check_score"]


def check_generation(request: GenerationRequest, profile: Profile) -> None:
    """Refuse what the server cannot give or take.

    Raises:
        ConfigurationError: more candidates than it lists, or a way of sampling that it does not have.
        InputError: a kind of prompt that it does not take with log-probabilities, or an empty one.
    """
    _check_count(request.top_logprobs, profile)
    _check_prompt(request.prompt, profile)
    sampling, dialect = request.sampling, profile.dialect
    if sampling.top_k and not dialect.top_k:
        raise ConfigurationError(
            f"a server of kind {dialect.name} does not sample by top_k", context={"missing": "top_k"}
        )
    if sampling.seed is not None and not sampling.greedy:
        if not dialect.seeds:
            raise ConfigurationError(
                f"a server of kind {dialect.name} takes no seed", context={"missing": "seeds"}
            )
        if sampling.seed > dialect.largest_seed:
            raise ConfigurationError(
                f"a server of kind {dialect.name} takes seeds up to {dialect.largest_seed}"
            )


def check_score(request: ScoreRequest, profile: Profile) -> None:
    """Refuse what the server cannot score.

    Raises:
        ConfigurationError: it scores nothing, or nothing of this kind, or lists fewer candidates.
        InputError: token ids, for which no tokenizer is at hand; no prompt.
    """
    plain = isinstance(request.prompt, str)
    if not (profile.scores if plain else profile.scores_chats):
        raise ConfigurationError(
            f"the server ({profile.dialect.name}) cannot score "
            + ("a given text" if plain else "an answer to messages"),
            hint="use a server that gives log-probabilities of prompts (vLLM), or the model in process",
            context={"missing": "scores" if plain else "scores_chats"},
        )
    if request.completion is None:
        raise InputError(
            "a server cannot score token ids, only a text", hint="use the model in process to score them"
        )
    if not request.prompt:
        nothing = "the prompt is empty" if plain else "there are no messages"
        raise InputError(f"{nothing}, so the first token of the text would not be measured")
    _check_count(request.top_logprobs, profile)


def _check_count(top_logprobs: int, profile: Profile) -> None:
    if top_logprobs > profile.max_top_logprobs:
        raise ConfigurationError(
            f"{top_logprobs} candidates a step are wanted and the server lists {profile.max_top_logprobs}",
            hint=f"set top_logprobs to {profile.max_top_logprobs}, or allow more where the server is started",
            context={"missing": "top_logprobs", "max_top_logprobs": profile.max_top_logprobs},
        )


def _check_prompt(prompt: Prompt, profile: Profile) -> None:
    plain = isinstance(prompt, str)
    if not prompt:
        raise InputError("the prompt is empty" if plain else "there are no messages")
    if plain and not profile.plain:
        raise InputError(
            f"the server ({profile.dialect.name}) gives no log-probabilities for plain prompts",
            hint="give the prompt as a message",
        )
    if not plain and not profile.chat:
        raise InputError(
            f"the server ({profile.dialect.name}) gives no log-probabilities in chats",
            hint="give the prompt as plain text",
        )
