"""Many tasks, several systems, one finding each: what coordination is worth, with intervals and prices."""

from cert.coordination.suite.findings import Findings
from cert.coordination.suite.plan import SuitePlan
from cert.coordination.suite.progress import Progress
from cert.coordination.suite.rehearsal import Estimate, rehearse
from cert.coordination.suite.report import CoordinationReport
from cert.coordination.suite.run import measure_suite

__all__ = [
    "CoordinationReport",
    "Estimate",
    "Findings",
    "Progress",
    "SuitePlan",
    "measure_suite",
    "rehearse",
]
