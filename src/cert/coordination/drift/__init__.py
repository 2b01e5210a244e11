"""Whether a system got worse since a reference phase, and whether it was the system or its judge.

The state lies in a database, so that it survives restarts and is shared by processes. The mathematics of the
detector is in `cert.coordination.statistics.drift`.
"""

from cert.coordination.drift.anchors import Anchor, AnchorSet, Shift
from cert.coordination.drift.attribution import Kind
from cert.coordination.drift.monitor import DriftMonitor, DriftStatus
from cert.coordination.drift.series import Acknowledgement, Alarm, Check, Plan

__all__ = [
    "Acknowledgement",
    "Alarm",
    "Anchor",
    "AnchorSet",
    "Check",
    "DriftMonitor",
    "DriftStatus",
    "Kind",
    "Plan",
    "Shift",
]
