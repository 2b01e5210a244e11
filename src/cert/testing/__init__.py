"""Doubles that users' tests need as well as ours: clocks that a test moves, servers that fail on purpose."""

from cert.testing.clock import FakeClock

__all__ = ["FakeClock"]
