"""The measures of the evaluation of answers, as the reference model's tables use them.

Intervals are over people, not answers: facts about one person are not independent.
"""

from __future__ import annotations

from cert.trajectory.evaluation.bootstrap import REPLICATES, Estimate, clustered, clustered_auroc
from cert.trajectory.evaluation.metrics import auroc
from cert.trajectory.evaluation.probabilities import calibration_error
from cert.trajectory.evaluation.ranks import Flags, Floats
from cert.trajectory.evaluation.shares import clustered_share, rank_correlation

__all__ = [
    "REPLICATES", "Estimate", "Flags", "Floats", "auroc", "calibration_error", "clustered", "clustered_auroc",
    "clustered_share", "rank_correlation",
]  # fmt: skip
