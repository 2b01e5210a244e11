"""Labels for stored answers: by a rule and a reference, by a judge, or by a person.

What a rule cannot decide, and what a judge did not answer, is a missing label with its reason, never a "no".
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cert.answers import EXTRACTORS, Judge, Judgement, JudgeRequest, Matcher, extract, matches_any
from cert.backends.base import Prompt
from cert.backends.stored import StoredOptions
from cert.core.errors import ConfigurationError, InputError
from cert.trajectory.calibration.answers import Answer
from cert.trajectory.calibration.contents import content_of
from cert.trajectory.calibration.label_file import Label, Labels, LabelWriter
from cert.trajectory.calibration.records import read_answers

__all__ = ["ToLabel", "answers_to_label", "drawn", "judge_labels", "match_labels", "question_of"]

_BATCH: Final = 32
NO_REFERENCE: Final = "no reference"
UNDECIDED: Final = "the rule could not decide"


@dataclass(frozen=True, slots=True)
class ToLabel:
    """An answer as whoever labels it sees it.

    Attributes:
        id: its name.
        question: what was asked, as one text.
        answer: what was answered; neither is to be trusted.
        references: right answers, where the record holds some.
        content: a digest of question and answer; equal ones get one judgement.
    """

    id: str
    question: str
    answer: str
    references: tuple[str, ...] = ()
    content: bytes = b""


def answers_to_label(
    path: str | Path,
    *,
    reference: str | None = None,
    key: str | None = None,
    options: StoredOptions | None = None,
) -> Iterator[ToLabel]:
    """Return the answers of a file that have a text, as they are asked for; broken records are passed over.

    Args:
        path: as in `cert.trajectory.calibration.reading.read_labelled`.
        reference: the field with the right answer, or a list of right answers.
        key: as in `read_labelled`.
        options: as in `read_labelled`.

    Raises:
        InputError: the file cannot be read, or a reference is neither text nor a number.
    """
    for found in read_answers(Path(path), fields=[reference] if reference else [], key=key, options=options):
        if isinstance(found, Answer) and found.text is not None:
            yield ToLabel(
                id=found.id,
                question="" if found.prompt is None else question_of(found.prompt),
                answer=found.text,
                references=() if reference is None else _references(found, reference),
                content=content_of(found.prompt, found.text) or found.id.encode("utf-8", "replace"),
            )


def drawn(answers: Iterator[ToLabel], count: int, seed: int) -> list[ToLabel]:
    """Return so many answers, chosen and ordered by chance, in the memory that these take.

    The order depends on the seed and the names alone: it goes on as it was when answers are added, and
    wherever one stops, what came before is a random sample.
    """

    def place(answer: ToLabel) -> bytes:
        return blake2b(f"{seed}:{answer.id}".encode("utf-8", "replace"), digest_size=16).digest()

    return heapq.nsmallest(count, answers, key=place)


def match_labels(
    path: str | Path,
    matcher: Matcher,
    *,
    reference: str,
    extractors: Sequence[str] = (),
    key: str | None = None,
    options: StoredOptions | None = None,
) -> Labels:
    """Label answers by a rule: right if one of the references matches.

    Args:
        path: as in `answers_to_label`.
        matcher: the rule, such as `cert.answers.NumericMatcher`.
        reference: the field with the right answer or a list of them.
        extractors: names of `cert.answers.EXTRACTORS`, the first that finds something says which part of the
            text is the answer; none takes all of it. Where nothing is found there is no label.
        key: as in `answers_to_label`.
        options: as in `answers_to_label`.
        key: as in `answers_to_label`.
        options: as in `answers_to_label`.

    Raises:
        InputError: no record has a reference, or one is neither text nor a number.
        ConfigurationError: there is no such extractor.
    """
    for name in extractors:
        if name not in EXTRACTORS:
            raise ConfigurationError(
                f"there is no extractor '{name}'", hint=f"one of {', '.join(EXTRACTORS)}"
            )
    found: dict[str, Label] = {}
    for answer in answers_to_label(path, reference=reference, key=key, options=options):
        found[answer.id] = _matched(answer, matcher, extractors)
    if found and all(one.reason == NO_REFERENCE for one in found.values()):
        raise InputError(f"no record of '{path}' has a reference: '{reference}' is in none of them")
    return Labels(found, f"the rule on '{path}'")


def judge_labels(
    answers: Iterator[ToLabel] | Sequence[ToLabel],
    judge: Judge,
    writer: LabelWriter,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> Mapping[str, int]:
    """Ask a judge whether answers are right, and write each judgement as soon as it is there.

    What the file has a label of is not asked again; judgements that are missing are. The same answer to the
    same question is judged once.

    Args:
        answers: to judge.
        judge: whom to ask.
        writer: where labels go.
        advance: called with how many answers were dealt with.

    Returns:
        How many judgements are missing now, by reason.

    Raises:
        CertError: the judge cannot go on, such as without money; what was judged is kept.
        OutputError: a label could not be written.
    """
    missing: dict[str, int] = {}
    judged: dict[bytes, Judgement] = {}
    remaining = iter(answers)
    while block := list(islice(remaining, _BATCH)):
        known = {one.id for one in block if (kept := writer.labels.get(one.id)) and kept.correct is not None}
        left = [one for one in block if one.id not in known]
        new = list({one.content: one for one in left if one.content not in judged}.values())
        said = judge.judge([_request(one) for one in new]) if new else []
        if len(said) != len(new):
            raise InputError(f"the judge gave {len(said)} judgements of {len(new)} answers")
        judged.update(zip((one.content for one in new), said, strict=True))
        for one in left:
            judgement = judged[one.content]
            reason = None if judgement.verdict is not None else f"judge: {judgement.missing or 'undecided'}"
            writer.write(one.id, judgement.verdict, reason=reason)
            if reason is not None:
                missing[reason] = missing.get(reason, 0) + 1
        advance(len(block))
    return missing


def question_of(prompt: Prompt) -> str:
    """Return a prompt as one text: what a single user says as it is, of other chats who says what."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)


def _matched(answer: ToLabel, matcher: Matcher, extractors: Sequence[str]) -> Label:
    if not answer.references:
        return Label(None, reason=NO_REFERENCE)
    try:
        text: str | None = answer.answer
        if extractors:
            extraction = extract(answer.answer, *extractors)
            text = None if extraction is None else extraction.answer
        verdict = None if text is None else matches_any(matcher, text, answer.references)
    except InputError:  # too long to be worked on
        verdict = None
    return Label(verdict, reason=UNDECIDED if verdict is None else None)


def _request(answer: ToLabel) -> JudgeRequest:
    reference = answer.references[0] if answer.references else None
    return JudgeRequest("correct", answer.question, (answer.answer,), reference)


def _references(found: Answer, name: str) -> tuple[str, ...]:
    value = found.fields.get(name)
    values = [] if value is None else value if isinstance(value, list) else [value]
    return tuple(_reference(one, name, found.where) for one in values)


def _reference(value: Any, name: str, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            repr(value) if isinstance(value, float) else format(value, "d") if abs(value) < 10**400 else "?"
        )
    raise InputError(f"{where}: the reference '{name}' is neither text nor a number")
