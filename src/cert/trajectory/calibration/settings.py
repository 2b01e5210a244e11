"""The settings of a monitor that a certificate asks for, and those that it does not cover."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.calibration.labelled import Conditions
from cert.trajectory.types import TrajectoryConfig

__all__ = ["config_of", "refuse_settings"]


def config_of(gate: CalibratedGate | None) -> TrajectoryConfig:
    """Return the settings with which a certificate's answers were made; the usual ones where it has none."""
    if gate is None:
        return TrajectoryConfig()
    c = gate.certificate.conditions
    sampling = c.sampling or {}
    given: dict[str, Any] = {
        "max_new_tokens": c.max_new_tokens,
        "temperature": sampling.get("temperature"),
        "top_p": sampling.get("top_p"),
        "sampling_top_k": sampling.get("top_k"),
        "top_k": c.top_k,
        "surprise_probability_threshold": c.surprise_probability,
    }
    return TrajectoryConfig(**{name: value for name, value in given.items() if value is not None})


def refuse_settings(gate: CalibratedGate | None, model: str | None, config: TrajectoryConfig) -> None:
    """Refuse a model's name or settings that the gate's certificate does not cover.

    Args:
        gate: without one, nothing is refused.
        model: that will answer; ``None`` for records, each of which says itself how it was made.
        config: the settings.

    Raises:
        ConfigurationError: with what differs and both of its values.
    """
    if gate is None:
        return
    signals = Conditions(surprise_probability=config.surprise_probability_threshold)
    if model is None:
        gate.refuse_mismatch(signals)
        return
    gate.refuse_mismatch(
        replace(signals, model=model, sampling=_sampling(config), max_new_tokens=config.max_new_tokens)
    )


def _sampling(config: TrajectoryConfig) -> dict[str, Any]:
    if config.temperature == 0.0:
        return {"temperature": 0.0}
    return {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.sampling_top_k}
