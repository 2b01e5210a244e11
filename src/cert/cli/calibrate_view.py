"""A certificate on a terminal: the promise in words, what it rests on, and what nobody checked."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cert.cli.view import printable
from cert.core.visible import label

if TYPE_CHECKING:
    from cert.trajectory.calibration.certificate import Certificate
    from cert.trajectory.calibration.certificate_parts import Rate
    from cert.trajectory.calibration.goals import Threshold

__all__ = ["certificate_lines", "promise"]

_SHOWN_GROUPS: Final = 50
_RATES: Final = {
    "passed": "answers that passed",
    "flagged_given_correct": "right answers that were flagged",
    "passed_given_wrong": "wrong answers that passed",
    "wrong_given_passed": "of those that passed, wrong",
    "wrong_and_passed": "of all answers, wrong and passed",
}


def certificate_lines(c: Certificate) -> RenderableType:
    """Return everything that a person wants to see of a certificate."""
    return Group(
        Text(promise(c), "bold"),
        *(Text(f"  {line}") for line in _thresholds(c)),
        Padding(_facts(c), (1, 0, 0, 2)),
        *_achieved(c),
        Text("What nobody checked", "bold"),
        *(Text(f"  · {printable(told)}", "dim") for told in _not_checked(c)),
    )


def promise(c: Certificate) -> str:
    """Return what is promised, in words."""
    rate = _percent(c.alpha)
    what = {
        "false-flags": f"Of the right answers, at most {rate} are flagged",
        "misses": f"Of the wrong answers, at most {rate} pass",
        "selective-risk": f"Of the answers that pass, at most {rate} are wrong",
        "undetected-errors": f"Of all answers, at most {rate} are wrong and pass",
        "streaming": f"Of the right answers, at most {rate} are ever alarmed at, whenever one stops",
    }[c.goal]
    each = ", in each group" if c.groups is not None else ""
    if c.delta is not None:
        return f"{what}{each}: this holds for at least {_percent(1.0 - c.delta)} of such calibrations."
    return f"{what}{each}, on average over such calibrations."


def _thresholds(c: Certificate) -> list[str]:
    name = label(c.score)
    if c.threshold is not None:
        return [_passes(name, c.threshold)]
    groups = list((c.groups or {}).items())
    told = [
        f"group {label(group)}: {_passes(name, threshold)}" for group, threshold in groups[:_SHOWN_GROUPS]
    ]
    return told + [f"and {len(groups) - _SHOWN_GROUPS} more groups"] * (len(groups) > _SHOWN_GROUPS)


def _passes(name: str, threshold: Threshold) -> str:
    if math.isinf(threshold.value):
        return "every answer passes that has a score" if threshold.value > 0 else "no answer passes"
    return f"an answer passes if its {name} is at most {threshold.value:.6g}"


def _facts(c: Certificate) -> Table:
    conditions = {name: value for name, value in asdict(c.conditions).items() if value is not None}
    rows = [
        ("from", f"{c.n:,} answers about {c.n_units:,} units, {c.n_wrong:,} of them wrong"),
        ("of", f"{c.data_n:,} labelled answers about {c.data_units:,} units"),
        *(
            (f"  {label(name)}", f"{part.n:,} about {part.n_units:,}, {part.n_wrong:,} wrong")
            for name, part in c.split.items()
        ),
        *((f"{count:,} left out", label(reason, 120)) for reason, count in c.dropped.items()),
        *((name.replace("_", " "), label(_value(value), 200)) for name, value in conditions.items()),
        ("made", f"{label(c.created_at)}, seed {c.seed}"),
        ("id", c.id),
        ("signed", _signed(c)),
    ]
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name, "dim"), Text(value))
    return table


def _achieved(c: Certificate) -> list[RenderableType]:
    if c.achieved is None:
        return [Text("On answers that were held out: not measured", "bold")]
    a = c.achieved
    table = Table.grid(padding=(0, 3))
    for _ in range(3):
        table.add_column(overflow="fold")
    for name, rate in a.rates.items():
        table.add_row(
            Text(_RATES.get(name, label(name)), "dim"), Text(_rate(rate)), Text(f"of {rate.n:,}", "dim")
        )
    for name, rate in list(a.by_group.items())[:_SHOWN_GROUPS]:
        table.add_row(Text(f"group {label(name)}", "dim"), Text(_rate(rate)), Text(f"of {rate.n:,}", "dim"))
    head = (
        f"On {a.n:,} answers about {a.n_units:,} units that played no part: {_rate(a.promised)} "
        f"where at most {_percent(c.alpha)} is promised"
    )
    return [Text(""), Text(head, "bold"), Padding(table, (0, 0, 1, 2))]


def _not_checked(c: Certificate) -> list[str]:
    told = [
        "whether answers will go on to come as these came: other prompts, models or settings end the promise",
        "whether the labels are right",
        *c.notes,
    ]
    unknown = [name.replace("_", " ") for name, value in asdict(c.conditions).items() if value is None]
    if unknown:
        told.append(f"not recorded, and so not compared by a monitor: {', '.join(unknown)}")
    if c.signature is None:
        told.append("who made it: it is not signed, and its hashes protect against accidents alone")
    return told


def _signed(c: Certificate) -> str:
    return "no" if c.signature is None else f"with the key {c.signature.public_key.hex()}"


def _rate(rate: Rate) -> str:
    if math.isnan(rate.value):
        return "not measured"
    return f"{_percent(rate.value)} ({_percent(rate.lower)} to {_percent(rate.upper)})"


def _percent(value: float) -> str:
    return f"{100.0 * value:.3g} %"


def _value(value: Any) -> str:
    return (
        ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)
    )
