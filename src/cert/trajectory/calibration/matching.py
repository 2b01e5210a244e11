"""Whether an answer was made as those that a certificate is of: its promise holds for them alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

from cert.backends.base import Generation, GenerationRequest, ModelIdentity, Sampling, ScoreRequest
from cert.core.errors import ConfigurationError
from cert.core.visible import label
from cert.trajectory.calibration.conditions import recorded_conditions
from cert.trajectory.calibration.labelled import Conditions

__all__ = ["CONDITIONS", "Made", "Match"]

CONDITIONS: Final[tuple[str, ...]] = tuple(field.name for field in fields(Conditions))
"""The names of the conditions."""

# Ways of making answers that are remembered as right; a monitor has one or a few.
_MOST_REMEMBERED = 256
_NOBODY: Final = ModelIdentity("unknown", None, "stored", None, None)
# Ends that a limit of the length has no part in.
_ENDED: Final = frozenset({"stop", "context_window", "content_filter", "refusal", "tool_calls"})


@dataclass(frozen=True, slots=True)
class Made:
    """How one answer was made, as its record says it.

    Attributes:
        model: who answered.
        sampling: how tokens were chosen; ``None`` is not known.
        logprobs_mode: of the log-probabilities.
        top_k: K, the candidates recorded a step.
        n_tokens: T.
        finish_reason: how it ended.
        max_new_tokens: the limit that it was generated with; ``None`` is not known.
    """

    model: ModelIdentity
    sampling: Sampling | None
    logprobs_mode: str
    top_k: int
    n_tokens: int
    finish_reason: str
    max_new_tokens: int | None = None

    @classmethod
    def of(cls, g: Generation, max_new_tokens: int | None = None) -> Self:
        """Return how a generation was made."""
        n_tokens, top_k = len(g.steps), g.steps.top_k
        return cls(g.model, g.sampling, g.logprobs_mode, top_k, n_tokens, g.finish_reason, max_new_tokens)


class Match:
    """Compares conditions with those of a certificate.

    What the certificate does not know (``None``) cannot be compared and is in ``unchecked``. What it knows
    and the answer does not tell is refused: state it, or waive it.

    Args:
        certified: of the certificate.
        stated: what answers and monitors do not tell themselves, as the user vouches for it.
        waive: names of conditions that may differ. The promise does not cover what is waived.

    Attributes:
        unchecked: the conditions that the certificate does not know.
        waived: those that it knows and that are waived.

    Raises:
        ConfigurationError: a name that is no condition, a statement that the certificate contradicts, or a
            condition that only the user can state and that is neither stated nor waived.
    """

    def __init__(
        self, certified: Conditions, stated: Conditions | None = None, waive: Collection[str] = ()
    ) -> None:
        if isinstance(waive, str) or not set(waive) <= set(CONDITIONS):
            unknown = [waive] if isinstance(waive, str) else sorted(set(waive) - set(CONDITIONS))
            raise ConfigurationError(
                f"there is no condition to waive by the name of {', '.join(map(label, unknown))}",
                hint=f"a tuple of some of {', '.join(CONDITIONS)}",
            )
        self._certified = certified
        self._stated = stated or Conditions()
        known = [name for name in CONDITIONS if getattr(certified, name) is not None]
        self.unchecked = tuple(name for name in CONDITIONS if name not in known)
        self.waived = tuple(name for name in known if name in waive)
        self._bound = tuple(name for name in known if name not in waive)
        self._right: set[Any] = set()
        self.refuse(Conditions())
        if "template" in self._bound and self._stated.template is None:
            raise _unknown("template", certified.template)

    def refuse(self, seen: Conditions, *, vocab_size: int | None = None, final: bool = False) -> None:
        """Refuse what is known to differ.

        Args:
            seen: how an answer was made, or will be; ``None`` is not known.
            vocab_size: V; of a smaller vocabulary than K all candidates are recorded.
            final: nothing more will be known: what is not known is refused too.

        Raises:
            ConfigurationError: with the condition and both of its values.
        """
        for name in self._bound:
            wanted, found = getattr(self._certified, name), getattr(seen, name)
            stated = getattr(self._stated, name)
            if found is None:
                found = stated
            elif stated is not None and not _equal(name, stated, found, vocab_size):
                raise _stated_wrongly(name, stated, found)
            if found is None:
                if final:
                    raise _unknown(name, wanted)
            elif not _equal(name, wanted, found, vocab_size, partly=not final):
                raise _differs(name, wanted, found)

    def refuse_model(self, model: ModelIdentity, logprobs_mode: str) -> None:
        """Refuse a model, or what runs it, that is another one; before it is asked.

        Raises:
            ConfigurationError: as `refuse`.
        """
        seen = recorded_conditions(model, None, logprobs_mode, top_k=None, surprise_probability=0.1)
        # Which revision a server has, and of which kind its log-probabilities are, may show later.
        self.refuse(replace(seen, surprise_probability=None))

    def refuse_request(self, request: GenerationRequest | ScoreRequest) -> None:
        """Refuse a way of choosing tokens or a limit of the length, before the generation.

        Raises:
            ConfigurationError: as `refuse`; of a given text neither is known, so that both have to be stated.
        """
        if isinstance(request, ScoreRequest):
            for name in ("sampling", "max_new_tokens"):
                if name in self._bound and getattr(self._stated, name) is None:
                    raise _unknown(name, getattr(self._certified, name))
            return
        asked = recorded_conditions(
            _NOBODY, request.sampling, "unknown", top_k=None, surprise_probability=0.1,
            max_new_tokens=request.max_new_tokens,
        )  # fmt: skip
        self.refuse(Conditions(sampling=asked.sampling, max_new_tokens=asked.max_new_tokens))

    def refuse_answer(self, made: Made, surprise_probability: float) -> None:
        """Refuse an answer that was not made so.

        Where the limit of its length is not known, an answer that came to its own end within the certified
        limit is one that this limit would have let through unchanged, and so is one that was cut just there.

        Args:
            made: how it was made.
            surprise_probability: of its signals.

        Raises:
            ConfigurationError: as `refuse`.
        """
        limit = made.max_new_tokens
        if limit is None and _within(made, self._certified.max_new_tokens):
            limit = self._certified.max_new_tokens
        s = made.sampling
        sampling = None if s is None else (s.temperature, s.top_p, s.top_k)
        # Without a token there is nothing to record, and nothing is measured.
        top_k = made.top_k if made.n_tokens else self._certified.top_k
        key = (made.model, sampling, made.logprobs_mode, top_k, limit, surprise_probability)
        if key in self._right:
            return
        seen = recorded_conditions(
            made.model,
            made.sampling,
            made.logprobs_mode,
            top_k=top_k,
            surprise_probability=surprise_probability,
            max_new_tokens=limit,
        )
        self.refuse(seen, vocab_size=made.model.vocab_size, final=True)
        if len(self._right) < _MOST_REMEMBERED:
            self._right.add(key)


def _within(made: Made, limit: int | None) -> bool:
    if limit is None:
        return False
    if made.finish_reason == "length":
        return made.n_tokens == limit
    return made.finish_reason in _ENDED and made.n_tokens <= limit


def _equal(name: str, wanted: Any, found: Any, vocab_size: int | None, *, partly: bool = False) -> bool:
    if name == "top_k" and vocab_size is not None:
        return bool(min(wanted, vocab_size) == min(found, vocab_size))
    if name != "sampling":
        return bool(wanted == found)
    names: Iterable[str] = wanted.keys() | found.keys()
    # Before a generation, what is left to the model's own settings is not known yet.
    open_yet = {name for name in names if partly and found.get(name) is None and name != "temperature"}
    greedy = wanted.get("temperature") == 0.0 or found.get("temperature") == 0.0
    compared = ("temperature",) if greedy else names
    return all(wanted.get(n) == found.get(n) for n in compared if n not in open_yet)


def _differs(name: str, wanted: Any, found: Any) -> ConfigurationError:
    return ConfigurationError(
        f"the certificate does not cover this: {name} is {_shown(found)}, and it was calibrated with "
        f"{_shown(wanted)}",
        hint=f"calibrate for {_shown(found)}, or waive '{name}': then the promise is yours to defend",
        context={"condition": name},
    )


def _unknown(name: str, wanted: Any) -> ConfigurationError:
    return ConfigurationError(
        f"the certificate may not cover this: {name} is not known, and it was calibrated with "
        f"{_shown(wanted)}",
        hint=f"CalibratedGate(certificate, stated=Conditions({name}=…)), or waive=('{name}',)",
        context={"condition": name},
    )


def _stated_wrongly(name: str, stated: Any, found: Any) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is stated as {_shown(stated)}, and is {_shown(found)}", context={"condition": name}
    )


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {'not set' if v is None else f'{v:g}'}" for name, v in value.items())
    return f"'{label(value, 120)}'" if isinstance(value, str) else str(value)
