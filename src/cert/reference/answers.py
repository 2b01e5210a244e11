"""Answers of the reference model with their truth: labelled data that anybody can make, of any size.

The questions are in the held-out wording and about people whose questions were never trained, so that each
answer is recalled from sentences, or made up. They are asked as a monitor with its defaults asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from cert._version import __version__
from cert.core.errors import CertError, InputError
from cert.core.files import write_whole
from cert.reference.world import Fact, World, load_world
from cert.trajectory import HamiltonianMonitor, Message, TrajectoryConfig

__all__ = ["choose_facts", "write_answers"]

_AT_ONCE: Final = 256


def write_answers(
    path: str | Path,
    *,
    people: int = 400,
    facts: int = 1,
    seed: int = 0,
    model: Path | None = None,
    config: TrajectoryConfig | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[int, int]:
    """Ask about people drawn by chance, and write the analyses with labels, a record a line.

    Beside the analysis a record has ``label`` (whether the answer is right), ``reference`` (the truth),
    ``person`` (the unit), ``attribute``, and ``exposures``: how often training showed the fact.

    Args:
        path: the JSONL file, which is replaced.
        people: how many.
        facts: how many of each.
        seed: of the choice.
        model: the model's folder; ``None`` takes the shipped one.
        config: of the monitor.
        advance: called with how many answers there are.

    Returns:
        How many answers were written, and how many of them are right.

    Raises:
        InputError: there are not so many people or facts.
        CertError: the model cannot be loaded, or a generation fails.
        OutputError: the file cannot be written.
    """
    chosen = choose_facts(load_world(model), people, facts, seed)
    name = None if model is None else str(model)
    lines: list[str] = []
    right = 0
    with HamiltonianMonitor(name, config=config, preload=True) as monitor:
        for start in range(0, len(chosen), _AT_ONCE):
            for record in _answered(monitor, chosen[start : start + _AT_ONCE], start):
                right += record["label"]
                lines.append(json.dumps(record, allow_nan=False))
                advance(len(lines))
    write_whole(path, ("\n".join(lines) + "\n").encode())
    return len(lines), right


def choose_facts(world: World, people: int, facts: int, seed: int) -> list[Fact]:
    """Return facts about people drawn by chance, so many of each.

    Raises:
        InputError: there are not so many.
    """
    by_person: dict[int, list[Fact]] = {}
    for fact in world.facts:
        if not fact.person.question_person:
            by_person.setdefault(fact.person.index, []).append(fact)
    if not 1 <= people <= len(by_person) or not 1 <= facts <= len(world.attributes):
        raise InputError(
            f"the world has {len(by_person):,} people who can be asked about, and {len(world.attributes)} "
            "facts of each"
        )
    rng = Random(f"cert-reference-answers-{seed}")  # noqa: S311  # to be repeatable
    return [
        fact
        for index in rng.sample(sorted(by_person), people)
        for fact in rng.sample(by_person[index], facts)
    ]


def _answered(monitor: HamiltonianMonitor, facts: list[Fact], first: int) -> Iterator[dict[str, Any]]:
    prompts = [[Message("user", fact.question())] for fact in facts]
    outcomes = monitor.analyze_batch(prompts, return_exceptions=True)
    for place, (fact, analysis) in enumerate(zip(facts, outcomes, strict=True), first):
        if isinstance(analysis, CertError):
            raise analysis
        yield {
            "schema_version": 1,
            "kind": "trajectory_record",
            "cert_version": __version__,
            "key": f"a{place}",
            "label": fact.states(analysis.generated_text),
            "reference": fact.value,
            "person": fact.person.name,
            "attribute": fact.attribute,
            "exposures": fact.exposures,
            "analysis": analysis.to_dict(),
        }
