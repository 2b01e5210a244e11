"""``cert calibrate``: a gate with a stated error rate from labelled answers, and its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from cert.cli.calibrate_label import label
from cert.cli.console import results, stderr
from cert.cli.labelled_options import AnswerOptions, LabelOptions, StoredAnswers
from cert.cli.option_groups import grouped
from cert.core.errors import OutputError

if TYPE_CHECKING:
    from cert.trajectory.calibration.certificate import Certificate

__all__ = ["app"]


class _GateByDefault(TyperGroup):
    """Takes whatever is no command for the data of ``cert calibrate gate``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before a file."""
        known = {*self.commands, *ctx.help_option_names}
        if args and args[0] not in known:
            args = ["gate", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="calibrate",
    cls=_GateByDefault,
    help="A gate with a stated error rate, from labelled answers. `cert calibrate DATA` is `cert calibrate "
    "gate DATA`.",
    no_args_is_help=True,
)
app.command("label")(label)


class GoalName(StrEnum):
    """What is promised; the values are those of `cert.trajectory.calibration.goals.GOALS`."""

    FALSE_FLAGS = "false-flags"
    MISSES = "misses"
    SELECTIVE_RISK = "selective-risk"
    UNDETECTED_ERRORS = "undetected-errors"
    STREAMING = "streaming"


@dataclass(frozen=True)
class CertificateOptions:
    """Where the certificate goes."""

    PANEL: ClassVar[str] = "Certificate"
    out: Annotated[Path, typer.Option("--out", "-o", help="The certificate.")] = Path("certificate.json")
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a certificate that is there already.")
    ] = False
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="PRIVATE.pem", exists=True, dir_okay=False, help="Sign with this key; see `keygen`."
        ),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the certificate as JSON, and nothing else.")
    ] = False

    def check(self) -> None:
        """Make sure, before the work, that the certificate can be written.

        Raises:
            OutputError: it cannot, or is there already.
        """
        from cert.cli.output import check_writable

        check_writable(self.out)
        if self.out.is_file() and not self.overwrite:
            raise OutputError(f"'{self.out}' is there already", hint="--overwrite, or another --out")


@app.command("gate")
@grouped
def gate(
    data: StoredAnswers,
    goal: Annotated[GoalName, typer.Option(help="What is promised; see below.")] = GoalName.SELECTIVE_RISK,
    alpha: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The rate that is promised to be kept.")
    ] = 0.05,
    delta: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="For selective-risk: the share of calibrations that may fail.",
            show_default="0.1",
        ),
    ] = None,
    score: Annotated[
        str,
        typer.Option(help="Score that is compared with the threshold, such as msp; or best, or combiner."),
    ] = "msp",
    by_group: Annotated[
        bool, typer.Option("--by-group", help="A promise and a threshold for each group by itself.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the division into parts.")] = 0,
    *,
    labels: LabelOptions,
    answers: AnswerOptions,
    certificate: CertificateOptions,
) -> None:
    """Find a threshold that keeps a promise, and write its certificate.

    selective-risk: of the answers that pass, at most ALPHA are wrong, in at least 1 - DELTA of calibrations.
    false-flags: of right answers, at most ALPHA are flagged. misses: of wrong answers, at most ALPHA pass.
    undetected-errors: at most ALPHA of all answers are wrong and pass. streaming: of right answers, at most
    ALPHA are ever alarmed at, token by token.

    Exit codes: 0 calibrated, 2 bad usage or input, or no threshold keeps the promise on these data, 3 could
    not run.
    """
    certificate.check()
    found = answers.read(data, labels)
    from cert.trajectory.calibration.calibrate import calibrate

    with stderr().status("calibrating"):
        made = calibrate(
            found,
            goal=goal.value,
            alpha=alpha,
            delta=_delta(goal, delta),
            score=score,
            by_group=by_group,
            seed=seed,
        )
    if certificate.key is not None:
        from cert.trajectory.calibration.signing import load_private_key

        made = made.sign(load_private_key(certificate.key))
    made.save(certificate.out)
    _give(made, as_json=certificate.as_json)
    stderr().print(f"certificate: {certificate.out}", markup=False, highlight=False, soft_wrap=True)


@app.command("show")
def show(
    path: Annotated[
        Path, typer.Argument(metavar="CERT", exists=True, dir_okay=False, help="The certificate.")
    ],
    key: Annotated[
        Path | None,
        typer.Option(metavar="PUBLIC.pem", exists=True, dir_okay=False, help="Whose signature it must have."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the certificate as JSON, and nothing else.")
    ] = False,
) -> None:
    """Check a certificate and say what it promises.

    Exit codes: 0 whole (and signed with --key, where one is given), 2 damaged, edited, or not signed so.
    """
    from cert.trajectory.calibration.certificate import Certificate

    _give(Certificate.load(path, public_key=key), as_json=as_json)


@app.command("keygen")
def keygen(
    private: Annotated[
        Path, typer.Argument(metavar="PRIVATE.pem", help="For the private key, which signs; keep it secret.")
    ],
    public: Annotated[
        Path | None,
        typer.Option(
            metavar="PUBLIC.pem", help="For the public key.", show_default="PRIVATE.pub.pem beside it"
        ),
    ] = None,
) -> None:
    """Make a pair of keys (Ed25519) to sign certificates with. No file is replaced."""
    from cert.trajectory.calibration.signing import make_key_pair

    beside = public or private.with_name(f"{private.stem}.pub.pem")
    make_key_pair(private, beside)
    with results() as out:
        out.print(f"private: {private}", markup=False, highlight=False, soft_wrap=True)
        out.print(f"public:  {beside}", markup=False, highlight=False, soft_wrap=True)


def _delta(goal: GoalName, given: float | None) -> float | None:
    return 0.1 if given is None and goal is GoalName.SELECTIVE_RISK else given


def _give(made: Certificate, *, as_json: bool) -> None:
    from cert.cli.calibrate_view import certificate_lines
    from cert.cli.result import as_json_line

    with results() as out:
        if as_json:
            typer.echo(as_json_line(made.to_dict()))
        else:
            out.print(certificate_lines(made))
