"""Time that replicas share: Redis's own clock, kept from jumping by the monotonic clocks of its users.

Redis knows only the wall clock of its machine, which can be set. A replica sends along the latest shared time
it has seen, and by its monotonic clock how long ago that was, at least (since the answer came) and at most
(since it had asked). In the same atomic step that uses the time, it is held between the two, and never goes
back. So a wall clock that jumps ahead neither forgets spending nor frees a window, and one that jumps back
does not stop them.

A replica without memory (just started) cannot judge, and takes the time as it goes on from the last step.
"""

from __future__ import annotations

import threading

__all__ = ["SHARED_TIME", "TimeWitness"]

# An answer may be under way for a while; only what goes beyond this is a jump.
_SLACK_MICROSECONDS = 2_000_000

# `shared_time(last, offset, seen, least, most)`: the time in microseconds and the new offset, from what was
# kept of the last step, and from what its user has seen; both are to be kept. It writes nothing itself, so
# that a script can keep them together with the rest of its state.
SHARED_TIME = f"""
local function shared_time(last, offset, seen, least, most)
  local wall = redis.call('TIME')
  wall = tonumber(wall[1]) * 1000000 + tonumber(wall[2])
  local now = wall + tonumber(offset or '0')
  if seen > 0 then
    now = math.max(seen + least, math.min(now, seen + most + {_SLACK_MICROSECONDS}))
  end
  now = math.max(now, tonumber(last or '0'))
  return now, now - wall
end
"""


class TimeWitness:
    """What one replica knows of the shared time: the latest it has seen, when it asked, and when it heard."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = 0
        self._asked_at = 0.0
        self._heard_at = 0.0

    def evidence(self, now: float) -> tuple[int, int, int]:
        """Return the shared time last seen (0 for never), and the microseconds since: least and most."""
        with self._lock:
            least, most = (
                max(0, round((now - then) * 1_000_000)) for then in (self._heard_at, self._asked_at)
            )
            return self._seen, least, most

    def saw(self, shared: int, *, asked_at: float, heard_at: float) -> None:
        """Remember the shared time in an answer, and the monotonic times of question and answer."""
        with self._lock:
            if shared >= self._seen:
                self._seen, self._asked_at, self._heard_at = shared, asked_at, heard_at
