"""The score of a certificate as plain JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cert.core.errors import ConfigurationError
from cert.core.visible import label
from cert.trajectory.calibration.scores import SCORES, GateScore

__all__ = ["json_of", "score_of"]


def json_of(score: GateScore) -> dict[str, Any] | None:
    """Return what a certificate keeps of a score besides its name; ``None`` for one of `SCORES`.

    Raises:
        ConfigurationError: it is neither one of these nor can say itself in JSON, so that nobody who has the
            certificate could compute it.
    """
    if SCORES.get(score.name) is score:
        return None
    to_dict = getattr(score, "to_dict", None)
    if to_dict is None:
        raise ConfigurationError(
            f"the score '{score.name}' cannot be kept in a certificate",
            hint="a name of SCORES, or a combiner",
        )
    data: dict[str, Any] = to_dict()
    return data


def score_of(name: str, combiner: Mapping[str, Any] | None) -> GateScore:
    """Return the score that a certificate names.

    Raises:
        ConfigurationError: this version has no such score.
        InputError: the combiner's data are not of its form, or have another name.
    """
    if combiner is None:
        if name not in SCORES:
            raise ConfigurationError(
                f"the certificate decides by the score '{label(name)}', which this version does not have",
                hint="calibrate anew, or update CERT",
            )
        return SCORES[name]
    from cert.trajectory.calibration.combiner import Combiner

    score: GateScore = Combiner.of_dict(combiner)
    if score.name != name:
        raise ConfigurationError(
            f"the certificate names the score '{label(name)}' and holds '{label(score.name)}'"
        )
    return score
