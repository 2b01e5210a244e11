"""The results of an evaluation as tables: one definition for the terminal and the model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cert.reference.evaluate import Evaluation
from cert.reference.scores import Estimate
from cert.reference.team import Rate


@dataclass(frozen=True, slots=True)
class Table:
    """A title and rows of text; the first row is the head."""

    title: str
    rows: tuple[tuple[str, ...], ...]


def tables(evaluation: Evaluation) -> Iterator[Table]:
    """Give every table of an evaluation."""
    yield Table(
        "Recall by exposure: greedy, held-out wordings, questions about people never asked about in training",
        (
            (
                "exposures",
                "sentence",
                "chat",
                "chat, wrong with p > .5 (share of all)",
                "chat, mean p",
                "facts",
            ),
            *(
                (
                    str(row.exposures),
                    interval(row.sentence),
                    interval(row.chat),
                    interval(row.confident_errors),
                    number(row.mean_probability),
                    f"{row.sentence.n} / {row.chat.n}",
                )
                for row in evaluation.recall
            ),
        ),
    )
    yield Table(
        "AUROC of wrong answers in chat, by signal",
        (
            (
                "signal",
                "all exposures",
                "exposures 4 to 64",
                "with people never seen",
                "correlation with length",
            ),
            *(
                (
                    row.signal,
                    interval(row.seen_people),
                    interval(row.middle),
                    interval(row.everyone),
                    number(row.length_correlation),
                )
                for row in evaluation.signals
            ),
        ),
    )
    yield Table(
        "P(True) on a true and a plausible false proposal",
        (
            ("exposures", "AUROC", "mean on true", "mean on false"),
            *(
                (str(row.exposures), interval(row.auroc), number(row.mean_on_true), number(row.mean_on_false))
                for row in evaluation.verification
            ),
        ),
    )
    yield _rates("At temperature 1, on questions about facts seen 4 to 64 times", evaluation.team)
    yield _rates("Reading made-up candidates (greedy): share of answers as wanted", evaluation.probes)
    apart = evaluation.never_seen
    yield Table(
        "Apart",
        (
            ("measure", "value"),
            (
                "expected calibration error (15 bins of equal mass)",
                number(evaluation.expected_calibration_error),
            ),
            ("people never seen: answers", str(apart["answers"])),
            ("people never seen: right", number(apart["right"])),
            ("people never seen: mean p", number(apart["mean_probability"])),
        ),
    )


def _rates(title: str, rates: Sequence[Rate]) -> Table:
    head = ("case", "share", "questions")
    return Table(title, (head, *((r.name, interval(r.estimate), str(r.estimate.n)) for r in rates)))


def number(value: float | None) -> str:
    """Three digits, or a dash for what was not measured."""
    return "–" if value is None else f"{value:.3f}"


def interval(estimate: Estimate) -> str:
    """Value and interval, or a dash for what was not measured."""
    if estimate.value is None:
        return "–"
    return f"{estimate.value:.3f} [{number(estimate.low)}, {number(estimate.high)}]"
