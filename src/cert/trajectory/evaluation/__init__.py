"""What scores are worth on labelled answers: measures, intervals over units, and the report of both."""

from cert.trajectory.evaluation.bootstrap import Estimate
from cert.trajectory.evaluation.evaluate import evaluate_scores
from cert.trajectory.evaluation.types import EvaluationReport, ScoreEvaluation

__all__ = ["Estimate", "EvaluationReport", "ScoreEvaluation", "evaluate_scores"]
