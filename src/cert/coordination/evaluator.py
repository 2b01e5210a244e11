"""The judge of answers, under its name of version 4."""

from __future__ import annotations

from cert.coordination.evaluators.quality import QualityEvaluator

__all__ = ["QualityEvaluator"]
