"""The options of every command whose verdicts can come from a certificate."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from cert.core.errors import ConfigurationError

if TYPE_CHECKING:
    from cert.cli.model_options import MeasureOptions
    from cert.trajectory.calibration.gate import CalibratedGate

__all__ = ["EarlyStop", "GateOptions"]

EarlyStop = Annotated[
    bool,
    typer.Option(
        "--early-stop",
        help="End the generation at the alarm of a certificate for the goal streaming.",
        rich_help_panel="Calibrated gate",
    ),
]


@dataclass(frozen=True)
class GateOptions:
    """A certificate in place of fixed thresholds."""

    PANEL: ClassVar[str] = "Calibrated gate"
    gate: Annotated[
        Path | None,
        typer.Option(
            metavar="CERT",
            exists=True,
            dir_okay=False,
            help="Decide by this certificate (see `cert calibrate`), in place of the thresholds.",
        ),
    ] = None
    gate_key: Annotated[
        Path | None,
        typer.Option(
            metavar="PUBLIC.pem",
            exists=True,
            dir_okay=False,
            help="Refuse a certificate that is not signed with this key.",
        ),
    ] = None
    gate_group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Group of the answers, for a certificate with groups.")
    ] = None
    gate_template: Annotated[
        str | None,
        typer.Option(metavar="SHA256", help="Of the prompt's fixed part, for a certificate that names it."),
    ] = None
    gate_waive: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Let this condition differ from the certificate's, such as revision; may be repeated. The "
            "verdict says so, and the promise does not cover it.",
        ),
    ] = None

    def made(self, measure: MeasureOptions) -> CalibratedGate | None:
        """Return the gate, or ``None`` where no certificate is given.

        Raises:
            ConfigurationError: options that play no part, or that no condition has the name of.
            InputError: the certificate cannot be read, was changed, or is not signed with the key.
        """
        if self.gate is None:
            given = [name for name in _OTHERS if getattr(self, name)]
            if given:
                raise ConfigurationError(f"--{given[0].replace('_', '-')} plays no part without --gate")
            return None
        _refuse_thresholds(measure)
        from cert.trajectory.calibration.certificate import Certificate
        from cert.trajectory.calibration.gate import CalibratedGate
        from cert.trajectory.calibration.labelled import Conditions

        return CalibratedGate(
            Certificate.load(self.gate, public_key=self.gate_key),
            stated=Conditions(template=self.gate_template),
            waive=tuple(self.gate_waive or ()),
        )

    def refuse_no_alarm(self, made: CalibratedGate | None, *, early_stop: bool) -> None:
        """Refuse an early stop for which there is no alarm, before a model is loaded for it.

        Raises:
            ConfigurationError: there is no certificate, or it is for another goal.
        """
        if early_stop:
            from cert.trajectory.calibration.alarm import alarm_of

            alarm_of(made, self.gate_group)

    def settings(self, made: CalibratedGate | None) -> dict[str, Any]:
        """Return what of a batch's settings decides its verdicts; nothing without a gate."""
        if made is None:
            return {}
        return {
            "gate": {
                "certificate": made.certificate.checksum,
                "group": self.gate_group,
                "template": self.gate_template,
                "waived": list(made.waived),
            }
        }


_OTHERS = ("gate_key", "gate_group", "gate_template", "gate_waive")


def _refuse_thresholds(measure: MeasureOptions) -> None:
    for field in fields(measure):
        if field.name.endswith("_threshold") and getattr(measure, field.name) != field.default:
            raise ConfigurationError(
                f"--{field.name.replace('_', '-')} plays no part with --gate: the certificate decides"
            )
