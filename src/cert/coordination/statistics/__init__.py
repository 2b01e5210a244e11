"""The statistics of comparisons: arrays in, numbers out.

Scores are in [0, 1], NaN where a judgement is missing; rows are tasks, and tasks of one source are one unit.
Nothing here does I/O, logs or reads configuration. scipy is imported when an interval first needs it.
"""

from cert.coordination.statistics.costs import cost_per_further_point, cost_per_point
from cert.coordination.statistics.drift import DropDetector, DropState
from cert.coordination.statistics.holm import HolmStep, holm
from cert.coordination.statistics.inference import Difference, Inference, difference, inference
from cert.coordination.statistics.noise import (
    NoiseFloor,
    VarianceComponents,
    noise_floor,
    variance_components,
)
from cert.coordination.statistics.omega import (
    agent_spread,
    best_agents,
    omega,
    omega_best_agent,
    omega_best_sample,
    omega_bias,
)
from cert.coordination.statistics.pairs import Pairs, pair
from cert.coordination.statistics.power import (
    discordance_spread,
    minimum_detectable_effect,
    tasks_for,
    tasks_needed,
)
from cert.coordination.statistics.ratios import Estimate, gamma, gamma_budget, ratio, task_ratios
from cert.coordination.statistics.sequential import SequentialDecision, decide_sequentially
from cert.coordination.statistics.simulator import Discordant, Qualities, Simulated
from cert.coordination.statistics.verdict import MARGIN, Decision, Rules, decide, decide_all

__all__ = [
    "MARGIN",
    "Decision",
    "Difference",
    "Discordant",
    "DropDetector",
    "DropState",
    "Estimate",
    "HolmStep",
    "Inference",
    "NoiseFloor",
    "Pairs",
    "Qualities",
    "Rules",
    "SequentialDecision",
    "Simulated",
    "VarianceComponents",
    "agent_spread",
    "best_agents",
    "cost_per_further_point",
    "cost_per_point",
    "decide",
    "decide_all",
    "decide_sequentially",
    "difference",
    "discordance_spread",
    "gamma",
    "gamma_budget",
    "holm",
    "inference",
    "minimum_detectable_effect",
    "noise_floor",
    "omega",
    "omega_best_agent",
    "omega_best_sample",
    "omega_bias",
    "pair",
    "ratio",
    "task_ratios",
    "tasks_for",
    "tasks_needed",
    "variance_components",
]
