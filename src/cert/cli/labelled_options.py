"""Labelled answers as commands take them: which file, whose labels, what is about the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.backends.stored import StoredOptions
    from cert.trajectory.calibration.label_file import Labels
    from cert.trajectory.calibration.labelled import Conditions, LabelledData

__all__ = ["AnswerOptions", "LabelOptions", "Match", "StoredAnswers"]

StoredAnswers = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        exists=True,
        dir_okay=False,
        help="Stored answers: .jsonl (also .gz, .zst) or .parquet, of `cert batch`, `cert analyze --json`, "
        "or of a server.",
    ),
]


class Match(StrEnum):
    """A rule that compares an answer with a right one."""

    EXACT = "exact"
    NORMALIZED = "normalized"
    NUMERIC = "numeric"
    CHOICE = "choice"


@dataclass(frozen=True)
class LabelOptions:
    """Who says whether an answer is right: a field, a file, a rule, or a judge."""

    PANEL: ClassVar[str] = "Labels"
    label: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Field that is true or 1 for a right answer, false or 0 for a wrong one.",
            show_default="label or correct",
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File of labels, .jsonl or .csv with key and label; see `label`.",
        ),
    ] = None
    match: Annotated[
        Match | None, typer.Option(help="Right is what agrees with --reference by this rule.")
    ] = None
    reference: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Field with the right answer, or a list of them.")
    ] = None
    extract: Annotated[
        list[str] | None,
        typer.Option(help="What of a text is its answer, such as stated or last_number; may be repeated."),
    ] = None
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Let a model judge: 'reference', a directory, a hub id, anthropic:MODEL, openai:MODEL@URL.",
        ),
    ] = None
    max_cost: Annotated[str | None, typer.Option(metavar="DOLLARS", help="Most that the judge may cost.")] = (
        None
    )
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODEL=]IN,OUT", help="The judge's dollars for a million tokens in and out."),
    ] = None

    def given(self, data: Path, key: str | None, options: StoredOptions) -> Labels | Path | None:
        """Return the labels that are not in the data themselves, made now where a rule or a judge makes them.

        Raises:
            ConfigurationError: options that do not go together.
            CertError: the judge cannot be asked.
        """
        ways = {
            "--label": self.label,
            "--labels": self.labels,
            "--match": self.match,
            "--judge": self.judge,
        }
        used = [name for name, value in ways.items() if value is not None]
        if len(used) > 1:
            raise ConfigurationError(f"give {used[0]} or {used[1]}: labels come from one place")
        self._refuse_unused()
        if self.match is not None:
            return self._matched(data, key, options)
        if self.judge is not None:
            from cert.cli.calibrate_judge import judged

            return judged(self, data, key, options)
        return self.labels

    def _refuse_unused(self) -> None:
        if self.extract and self.match is None:
            raise ConfigurationError("--extract plays no part without --match")
        if self.reference is not None and self.match is None and self.judge is None:
            raise ConfigurationError("--reference plays no part without --match or --judge")
        if self.judge is None and (self.max_cost is not None or self.price):
            raise ConfigurationError("--max-cost and --price play no part without --judge")

    def _matched(self, data: Path, key: str | None, options: StoredOptions) -> Labels:
        from cert.answers import ChoiceMatcher, ExactMatcher, Matcher, NormalizedMatcher, NumericMatcher
        from cert.trajectory.calibration.labelling import match_labels

        if self.reference is None:
            raise ConfigurationError("--match needs --reference, the field with the right answer")
        rules: dict[Match | None, Matcher] = {
            Match.EXACT: ExactMatcher(),
            Match.NORMALIZED: NormalizedMatcher(),
            Match.NUMERIC: NumericMatcher(),
            Match.CHOICE: ChoiceMatcher(),
        }
        return match_labels(
            data,
            rules[self.match],
            reference=self.reference,
            extractors=self.extract or (),
            key=key,
            options=options,
        )


@dataclass(frozen=True)
class AnswerOptions:
    """What of a record is what, and what the records do not say."""

    PANEL: ClassVar[str] = "Answers"
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Whom or what an answer is about: answers about one unit are not independent.",
            show_default="each record is one",
        ),
    ] = None
    group: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Group of an answer, each with figures of its own.")
    ] = None
    named_by: Annotated[
        str | None, typer.Option("--id", metavar="FIELD", help="Field that names a record.")
    ] = None
    copies: Annotated[
        Literal["refuse", "drop"],
        typer.Option(help="The same answer to the same prompt under two units."),
    ] = "refuse"
    most_broken: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of records that may be unusable.")
    ] = 0.05
    template: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Of the fixed part of the prompts.")
    ] = None
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Limit of an answer, where the records do not say it.")
    ] = None
    logprobs: Annotated[
        Literal["raw", "processed"] | None,
        typer.Option(
            help="What a server's log-probabilities are of: the model, or what sampling made of it."
        ),
    ] = None
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Vocabulary of a server's model, to bound entropies from above.")
    ] = None

    def read(self, data: Path, labels: LabelOptions) -> LabelledData:
        """Return the labelled answers.

        Raises:
            CertError: they cannot be used; see `cert.trajectory.calibration.reading.read_labelled`.
        """
        from cert.cli.console import stderr
        from cert.trajectory.calibration.reading import read_labelled

        options = self._options()
        beside = labels.given(data, self.named_by, options)
        with stderr().status("reading the answers"):
            return read_labelled(
                data,
                label=labels.label,
                labels=beside,
                unit=self.unit,
                group=self.group,
                key=self.named_by,
                given=self._conditions(),
                duplicates=self.copies,
                most_broken=self.most_broken,
                options=options,
            )

    def _options(self) -> StoredOptions:
        from cert.backends.stored import StoredOptions

        return StoredOptions(logprobs_mode=self.logprobs or "unknown", vocab_size=self.vocab_size)

    def _conditions(self) -> Conditions:
        from cert.trajectory.calibration.labelled import Conditions

        return Conditions(template=self.template, max_new_tokens=self.max_new_tokens)
