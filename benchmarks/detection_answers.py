"""What the detection benchmark asks a reference model, and its answers as columns; see detection.py."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cert.backends.base import Generation, GenerationRequest, Message, Prompt, Sampling
from cert.backends.local import LocalBackend
from cert.core.errors import CertError
from cert.reference.asking import ANSWER_TOKENS, BATCH, Asker
from cert.reference.templates import load_templates
from cert.reference.verification import p_true_of_answers
from cert.reference.world import GROUPS, Fact, World, load_world
from cert.signals import TokenSteps

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLES: Final = 10
WIDEST: Final = 100
"""Candidates kept of each token: the largest K that is cut to."""
RUN_TOKENS: Final = 64
_GREEDY: Final = Sampling()
_COLUMNS: Final = ("token_ids", "logprob", "top_ids", "top_logprobs", "entropy", "self_certainty")


@dataclass(frozen=True, eq=False, slots=True)
class Traces:
    """The recorded tokens of B texts, one after the other.

    Attributes:
        steps: of all tokens.
        lengths: (B,) tokens of each text.
        texts: (B,) what was generated.
        offsets: (tokens, 2) start and end of each token in its text.
    """

    steps: TokenSteps
    lengths: Array
    texts: tuple[str, ...]
    offsets: Array

    @classmethod
    def of(cls, generations: Sequence[Generation]) -> Traces:
        """Put generations together."""
        parts = [one.steps for one in generations]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        return cls(
            TokenSteps(**columns, vocab_size=parts[0].vocab_size),
            np.array([len(part) for part in parts], dtype=np.int64),
            tuple(one.text for one in generations),
            np.concatenate([one.offsets for one in generations]),
        )

    def cut(self, k: int) -> TokenSteps:
        """Return the steps with k candidates, as a monitor with ``top_k=k`` records them."""
        s = self.steps
        top_ids, top = (np.ascontiguousarray(part[:, :k]) for part in (s.top_ids, s.top_logprobs))
        return TokenSteps(s.token_ids, s.logprob, top_ids, top, s.entropy, s.self_certainty, s.vocab_size)

    def truncated(self, k: int, *, vocab_known: bool) -> TokenSteps:
        """Return the steps as a server shows them: k candidates, and nothing of the full vocabulary."""
        s, missing = self.cut(k), np.full(len(self.steps), np.nan)
        size = s.vocab_size if vocab_known else None
        return TokenSteps(s.token_ids, s.logprob, s.top_ids, s.top_logprobs, missing, missing, size)

    def to_arrays(self, name: str) -> dict[str, Array]:
        """Return what `of_arrays` reads."""
        columns = {f"{name}.{column}": getattr(self.steps, column) for column in _COLUMNS}
        texts = np.array([text.encode() for text in self.texts], dtype=object)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return columns | {
            f"{name}.vocab_size": np.array(self.steps.vocab_size),
            f"{name}.lengths": self.lengths,
            f"{name}.offsets": self.offsets,
            f"{name}.bytes": np.frombuffer(b"".join(texts), dtype=np.uint8),
            f"{name}.text_lengths": lengths,
        }

    @classmethod
    def of_arrays(cls, name: str, arrays: Any) -> Traces:
        """Return what `to_arrays` wrote."""
        whole = arrays[f"{name}.bytes"].tobytes()
        ends = np.cumsum(arrays[f"{name}.text_lengths"]).tolist()
        texts = tuple(whole[start:end].decode() for start, end in zip([0, *ends], ends, strict=False))
        columns = {column: arrays[f"{name}.{column}"] for column in _COLUMNS}
        steps = TokenSteps(**columns, vocab_size=int(arrays[f"{name}.vocab_size"]))
        return cls(steps, arrays[f"{name}.lengths"], texts, arrays[f"{name}.offsets"])


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """All that one model was asked.

    Attributes:
        world: its truth.
        facts: (F,) those of people of whom training never asked.
        greedy: (F,) the questions in the held-out wording, answered greedily, with `WIDEST` candidates.
        warm: (F,) the same at temperature 1.
        worded: (F,) the questions in a wording of training, answered greedily.
        p_true: (F,) P(True) of the greedy answers; NaN is not measured.
        sampled: places of the facts that were sampled.
        samples: `SAMPLES` answers of each of them at temperature 1.
        runs: (F,) sentences that go on from the held-out sentence before its value, at temperature 1.
    """

    world: World
    facts: tuple[Fact, ...]
    greedy: Traces
    warm: Traces
    worded: Traces
    p_true: Array
    sampled: Array
    samples: Traces
    runs: Traces

    @property
    def people(self) -> Array:
        """(F,) whom each fact is about."""
        return np.array([fact.person.index for fact in self.facts])

    @property
    def never_seen(self) -> Array:
        """(F,) whether training never named the person."""
        return np.array([fact.person.never_seen for fact in self.facts])


def asked(
    folder: Path, limit: int | None, seed: int, cache: Path | None, tell: Callable[[str], object]
) -> Answers:
    """Ask one model, or read what it answered before.

    Args:
        folder: of the model.
        limit: ask about the first so many facts alone.
        seed: of the samples.
        cache: a folder for answers; a file is named by the model's hash.
        tell: hears what is done.
    """
    world = load_world(folder)
    facts = tuple(fact for fact in world.facts if not fact.person.question_person)[:limit]
    file = None if cache is None else cache / f"{_digest(folder)}-{len(facts)}-{seed}.npz"
    if file is None or not file.exists():
        arrays = _ask(folder, facts, seed, tell)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **arrays)
    else:
        tell(f"reads {file}")
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    traces = {
        name: Traces.of_arrays(name, arrays) for name in ("greedy", "warm", "worded", "samples", "runs")
    }
    return Answers(world=world, facts=facts, p_true=arrays["p_true"], sampled=arrays["sampled"], **traces)


def _digest(folder: Path) -> str:
    hashed = hashlib.sha256()
    for name in ("model.safetensors", "world.json"):
        hashed.update((folder / name).read_bytes())
    return hashed.hexdigest()[:16]


def _ask(folder: Path, facts: Sequence[Fact], seed: int, tell: Callable[[str], object]) -> dict[str, Array]:
    backend = LocalBackend.load(str(folder))
    templates = load_templates(facts[0].templates_version)
    asker = _Asker(backend, seed)
    chats = [_chat(fact.question()) for fact in facts]
    arrays: dict[str, Array] = {}
    tell(f"{len(facts)} questions, greedily")
    greedy = asker.ask(chats, top=WIDEST)
    tell("at temperature 1")
    warm = asker.ask(chats, temperature=1.0)
    tell("in a wording of training")
    worded = asker.ask([_chat(fact.question(0)) for fact in facts])
    tell("P(True)")
    arrays["p_true"] = p_true_of_answers(Asker(backend, seed), facts, [one.text for one in greedy], templates)
    tell("sentences that go on")
    runs = asker.ask([fact.sentence_prefix() for fact in facts], temperature=1.0, most=RUN_TOKENS)
    arrays["sampled"] = _to_sample(facts)
    tell(f"{SAMPLES} samples of {len(arrays['sampled'])} questions")
    asks = [chats[place] for place in arrays["sampled"] for _ in range(SAMPLES)]
    samples = asker.ask(asks, temperature=1.0, top=1)
    named = {"greedy": greedy, "warm": warm, "worded": worded, "samples": samples, "runs": runs}
    for name, generations in named.items():
        arrays |= Traces.of(generations).to_arrays(name)
    return arrays


def _to_sample(facts: Sequence[Fact]) -> Array:
    """Return the facts of every second test person that training saw: samples are what takes the time."""
    testing = [(place, fact.person) for place, fact in enumerate(facts) if is_test(fact)]
    people = sorted({person.index for _, person in testing if not person.never_seen})[::2]
    return np.array([place for place, person in testing if person.index in people])


def starts_of(lengths: Array) -> Array:
    """Return where each of texts begins that stand one after the other."""
    return np.asarray(np.cumsum(lengths) - lengths)


def is_test(fact: Fact) -> bool:
    """Say whether a fact is about one of the people that everything is judged on."""
    return fact.person.group >= GROUPS // 2


class _Asker:
    """Asks in batches of similar length, with a seed of its own for every sample."""

    def __init__(self, backend: LocalBackend, seed: int) -> None:
        self._backend = backend
        self._seed = (seed + 1) * 10_000_000

    def ask(
        self, prompts: Sequence[Prompt], *, temperature: float = 0.0, top: int = 20, most: int = ANSWER_TOKENS
    ) -> list[Generation]:
        """Return the answers in the order of the prompts."""
        order = sorted(range(len(prompts)), key=lambda place: len(str(prompts[place])))
        found: dict[int, Generation] = {}
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            requests = [
                GenerationRequest(prompts[place], most, self._sampling(temperature, place), top)
                for place in places
            ]
            for place, outcome in zip(places, self._backend.generate_batch(requests), strict=True):
                if isinstance(outcome, CertError):
                    raise outcome
                found[place] = outcome
        self._seed += len(prompts)
        return [found[place] for place in range(len(prompts))]

    def _sampling(self, temperature: float, place: int) -> Sampling:
        return Sampling(temperature, 1.0, 0, self._seed + place) if temperature else _GREEDY


def _chat(question: str) -> Prompt:
    return (Message("user", question),)
