"""From a recorded generation to an analysis: the one path for live, batch and stored data."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

import numpy as np

from cert.backends.base import Generation
from cert.core.stages import Stages
from cert.signals import (
    GenerationSignals,
    RunningSignals,
    StepSignals,
    TokenSteps,
    analyze_steps,
    energy,
)
from cert.signals.steps import FloatArray
from cert.trajectory.calibration.gate import CalibratedGate
from cert.trajectory.gate import GateDecision, decide
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["analyze_generation", "energies_of"]


def analyze_generation(
    generation: Generation,
    config: TrajectoryConfig,
    gate: CalibratedGate | None = None,
    *,
    group: str | None = None,
    max_new_tokens: int | None = None,
) -> TrajectoryAnalysis:
    """Compute the signals of a generation and put them through the gate.

    The arrays of generation and analysis cannot be written to afterwards: a cache may hand them to others.

    Args:
        generation: live or stored.
        config: settings; its thresholds decide where there is no gate.
        gate: that decides in place of the config's thresholds.
        group: of the answer, for a gate with groups.
        max_new_tokens: the limit that it was generated with, where that is known.

    Raises:
        ConfigurationError: the generation was not made as the gate's certificate says.
    """
    stages = Stages()
    with stages.time("signals"):
        step, running, signals = analyze_steps(generation.steps, config.signal_options)
        energies = energies_of(step, config)
    with stages.time("gate"):
        if gate is None:
            decision = _uncalibrated(generation, step, signals, config)
        else:
            decision = gate.judge(
                generation,
                step,
                running,
                signals,
                surprise_probability=config.surprise_probability_threshold,
                max_new_tokens=max_new_tokens,
                group=group,
            )
    _freeze(generation.steps, generation.stop_step, step, running)
    for array in (generation.offsets, energies):
        array.setflags(write=False)
    return TrajectoryAnalysis(
        generation=generation,
        config=config,
        step=step,
        running=running,
        signals=signals,
        energy=energies,
        decision=decision,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        stages=generation.stages + stages.result(),
    )


def _uncalibrated(
    generation: Generation, step: StepSignals, signals: GenerationSignals, config: TrajectoryConfig
) -> GateDecision:
    return decide(step, signals, config.thresholds, tokens=generation.tokens, profile=config.profile)


def _freeze(*columns: TokenSteps | StepSignals | RunningSignals | None) -> None:
    for part in columns:
        for field in fields(part) if part is not None else ():
            if isinstance(array := getattr(part, field.name), np.ndarray):
                array.setflags(write=False)


def energies_of(step: StepSignals, config: TrajectoryConfig) -> FloatArray:
    """Return the energy of each step, NaN where a threshold that it needs is not set."""
    if config.perplexity_threshold is None or config.entropy_threshold is None:
        return np.full(len(step), np.nan)
    return energy(
        step.surprisal,
        np.where(step.entropy_lower == step.entropy_upper, step.entropy_lower, np.nan),
        perplexity_threshold=config.perplexity_threshold,
        entropy_threshold=config.entropy_threshold,
    )
