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
from cert.signals.samples import (
    SampleSignals,
    discrete_semantic_entropy,
    predictive_entropy,
    sample_signals,
    weighted_semantic_entropy,
)
from cert.signals.steps import StepSignals, TokenSteps, step_signals, top_k_entropy_ceiling

__all__ = [
    "GenerationSignals",
    "RunningSignals",
    "SampleSignals",
    "SignalColumns",
    "SignalOptions",
    "SignalStream",
    "StepSignals",
    "TokenSteps",
    "analyze_steps",
    "discrete_semantic_entropy",
    "energy",
    "entropy_bounds",
    "predictive_entropy",
    "reduce_logits",
    "sample_signals",
    "signal_columns",
    "step_signals",
    "top_k_entropy_ceiling",
    "weighted_semantic_entropy",
]
