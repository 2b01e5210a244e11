"""Pure mathematics of token uncertainty: arrays in, numbers out, one definition for every source."""

from cert.signals.block import SignalColumns, signal_columns
from cert.signals.bounds import entropy_bounds
from cert.signals.distribution import reduce_logits
from cert.signals.generation import (
    GenerationSignals,
    RunningSignals,
    SignalOptions,
    SignalStream,
    analyze_steps,
    energy,
)
from cert.signals.steps import StepSignals, TokenSteps, step_signals, top_k_entropy_ceiling

__all__ = [
    "GenerationSignals",
    "RunningSignals",
    "SignalColumns",
    "SignalOptions",
    "SignalStream",
    "StepSignals",
    "TokenSteps",
    "analyze_steps",
    "energy",
    "entropy_bounds",
    "reduce_logits",
    "signal_columns",
    "step_signals",
    "top_k_entropy_ceiling",
]
