"""Doubles that users' tests need as well as ours: clocks that a test moves, servers that fail on purpose."""

from cert.testing.clock import FakeClock
from cert.testing.events import CapturedEvents, captured_events
from cert.testing.fault_server import Account, FaultServer, RecordedRequest
from cert.testing.replies import Reply, Token, error, ok

__all__ = [
    "Account",
    "CapturedEvents",
    "FakeClock",
    "FaultServer",
    "RecordedRequest",
    "Reply",
    "Token",
    "captured_events",
    "error",
    "ok",
]
