"""A process that tells some scores of a system that falls, one by one.

Arguments: database, numbers of the first score and of the one after the last, and how it dies: ``lives``, or
``before:N`` or ``after:N`` (kill -9 of itself before or after score N is saved); then all scores.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from cert.coordination.drift import DriftMonitor, Plan, state


async def main() -> None:
    """Tell the scores."""
    database, first, last, death, *scores = sys.argv[1:]
    when, _, number = death.partition(":")

    def die(*_: Any) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    async with DriftMonitor(database, plan=Plan(reference=30, horizon=50)) as monitor:
        for i in range(int(first), int(last)):
            if when == "before" and i == int(number):
                vars(state)["encode_series"] = die  # in the middle of the transaction
            await monitor.observe("team", "sums", float(scores[i]), key=str(i))
            if when == "after" and i == int(number):
                die()


if __name__ == "__main__":
    asyncio.run(main())
