"""``cert evaluate``: what each score is worth on labelled answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cert.cli.console import results, stderr
from cert.cli.coordinate_options import OutputOptions
from cert.cli.labelled_options import AnswerOptions, LabelOptions, StoredAnswers
from cert.cli.option_groups import grouped

__all__ = ["evaluate"]


class Curve(StrEnum):
    """How a score becomes a probability."""

    LOGISTIC = "logistic"
    ISOTONIC = "isotonic"


@grouped
def evaluate(
    data: StoredAnswers,
    score: Annotated[
        list[str] | None,
        typer.Option(help="A score, such as msp; may be repeated.", show_default="all of them"),
    ] = None,
    combiner: Annotated[
        bool,
        typer.Option("--combiner", help="Also judge a combination of the signals, fitted on other units."),
    ] = False,
    max_rejection: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of answers that the PRR rejects.")
    ] = 0.5,
    probabilities: Annotated[
        Curve, typer.Option(help="How a score becomes a probability, for ECE and Brier score.")
    ] = Curve.LOGISTIC,
    replicates: Annotated[int, typer.Option(min=200, help="Draws of units for each interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws and of the folds.")] = 0,
    *,
    labels: LabelOptions,
    answers: AnswerOptions,
    output: OutputOptions,
) -> None:
    """Judge scores on labelled answers: how well each tells wrong answers from right ones.

    AUROC, AUPRC, PRR, AURC, ECE and Brier score, correlation with length, and 95 % intervals over units.

    Exit codes: 0 evaluated, 2 bad usage or input, or answers that are all right or all wrong, 3 could not
    run.
    """
    output.check(data, *([labels.labels] if labels.labels else []))
    found = answers.read(data, labels)
    from cert.trajectory.evaluation import evaluate_scores

    with stderr().status("evaluating"):
        report = evaluate_scores(
            found,
            score or None,
            combiner=combiner,
            seed=seed,
            replicates=replicates,
            max_rejection=max_rejection,
            probabilities=probabilities.value,
        )
    if output.html is not None:
        from cert.trajectory.evaluation.report import render_evaluation

        output.write(render_evaluation(report))
    with results() as out:
        if output.as_json:
            from cert.cli.result import as_json_line

            typer.echo(as_json_line(report.to_dict()))
        else:
            from cert.cli.evaluate_view import evaluation_lines

            out.print(evaluation_lines(report))
