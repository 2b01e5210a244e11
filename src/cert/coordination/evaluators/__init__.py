"""How good an answer is: by rules, by functions of the user, by language models that judge.

A judge is an instrument. What it did not measure is missing, and what is known of its errors is reported.
"""

from cert.coordination.evaluators.agreement import (
    JudgeFigures,
    OrderFigures,
    flip_rate,
    judge_figures,
    krippendorff_alpha,
    order_figures,
    repeat_deviation,
)
from cert.coordination.evaluators.calibration import CalibratedShare, calibrated_share
from cert.coordination.evaluators.chat_judge import BlockingJudge, ChatJudge
from cert.coordination.evaluators.matching import MatchEvaluator, choice, exact, normalized, numeric, regex
from cert.coordination.evaluators.own import CallableEvaluator
from cert.coordination.evaluators.pairwise import PairwiseEvaluator, PairwiseJudge, Preference
from cert.coordination.evaluators.protocol import Evaluator
from cert.coordination.evaluators.quality import QualityEvaluator
from cert.coordination.evaluators.rubric import Criterion, Rubric

__all__ = [
    "BlockingJudge",
    "CalibratedShare",
    "CallableEvaluator",
    "ChatJudge",
    "Criterion",
    "Evaluator",
    "JudgeFigures",
    "MatchEvaluator",
    "OrderFigures",
    "PairwiseEvaluator",
    "PairwiseJudge",
    "Preference",
    "QualityEvaluator",
    "Rubric",
    "calibrated_share",
    "choice",
    "exact",
    "flip_rate",
    "judge_figures",
    "krippendorff_alpha",
    "normalized",
    "numeric",
    "order_figures",
    "regex",
    "repeat_deviation",
]
