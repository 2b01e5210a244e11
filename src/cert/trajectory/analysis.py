"""From a recorded generation to an analysis: the one path for live, batch and stored data."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from cert.backends.base import Generation
from cert.signals import analyze_steps, energy
from cert.trajectory.gate import decide
from cert.trajectory.types import TrajectoryAnalysis, TrajectoryConfig

__all__ = ["analyze_generation"]


def analyze_generation(generation: Generation, config: TrajectoryConfig) -> TrajectoryAnalysis:
    """Compute the signals of a generation and put them through the gate."""
    step, running, signals = analyze_steps(generation.steps, config.signal_options)
    energies = np.full(len(step), np.nan)
    if config.perplexity_threshold is not None and config.entropy_threshold is not None:
        energies = energy(
            step.surprisal,
            np.where(step.entropy_lower == step.entropy_upper, step.entropy_lower, np.nan),
            perplexity_threshold=config.perplexity_threshold,
            entropy_threshold=config.entropy_threshold,
        )
    return TrajectoryAnalysis(
        generation=generation,
        config=config,
        step=step,
        running=running,
        signals=signals,
        energy=energies,
        decision=decide(step, signals, config.thresholds, tokens=generation.tokens, profile=config.profile),
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )
