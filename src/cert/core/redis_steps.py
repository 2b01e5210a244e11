"""What one call asks of a shared Redis at one point, in one round trip.

A step is one script, with what becomes of its answer. Steps that stand next to each other in a call (a place
in the rate limit, dollars set aside, the breaker's permit) go to Redis together, as one script made of
theirs: it does the first, and the next only if that one went through, in the order that the call has. What
was not reached, since the one before refused or failed, stays pending; whoever needs it asks for it then.

So each script remains what it is when it is asked alone, and a round trip more or less changes nothing else.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Generic, TypeVar

from cert.core.errors import StoreError
from cert.core.redis_scripts import RedisScripts, Script, store_error

__all__ = ["Step", "take", "take_async"]

T = TypeVar("T")


class Step(ABC, Generic[T]):
    """One script to be run once, and what its answer means.

    Attributes:
        script: that is run.
        keys: that it works on.
        pending: whether it still has to be asked.
    """

    script: Script
    keys: Sequence[str]
    pending = True

    @property
    @abstractmethod
    def rides(self) -> bool:
        """Whether it may be sent along with a step before it: not while its part is degraded."""

    def begin(self) -> bool:
        """Say whether Redis is to be asked at all; if not, the step has been given another answer."""
        return True

    @abstractmethod
    def arguments(self) -> list[str | int]:
        """Return the arguments of the script; called right before they are sent."""

    @abstractmethod
    def answered(self, answer: list[Any]) -> None:
        """Take the answer.

        Raises:
            StoreError: it cannot be used; `failed` is called then.
        """

    @abstractmethod
    def failed(self, error: BaseException) -> None:
        """Take that there is no answer, and that it is not known whether Redis has done the work."""

    def passed_over(self) -> None:
        """Take that the step was sent along and, as is known, not done."""

    @abstractmethod
    def result(self) -> T:
        """Return what came of it, or raise; not while it is pending."""

    def _take(self, answer: list[Any]) -> None:
        try:
            self.answered(answer)
        except StoreError as error:
            self.failed(error)
        self.pending = False

    def _fail(self, error: BaseException) -> None:
        self.failed(error)
        self.pending = False


def take(redis: RedisScripts, steps: Sequence[Step[Any]]) -> None:
    """Take the first pending step, and along with it those after it; failures are the steps' own to tell."""
    trip = _trip(steps)
    if trip:
        try:
            answer = redis.run(*_question(trip))
        except BaseException as error:
            _fail(trip, error)
        else:
            _tell(trip, answer)


async def take_async(redis: RedisScripts, steps: Sequence[Step[Any]]) -> None:
    """Do what `take` does without holding up the event loop."""
    trip = _trip(steps)
    if trip:
        try:
            answer = await redis.run_async(*_question(trip))
        except BaseException as error:
            _fail(trip, error)
        else:
            _tell(trip, answer)


def _trip(steps: Sequence[Step[Any]]) -> list[Step[Any]]:
    """Those that go together now."""
    waiting = [step for step in steps if step.pending]
    if not waiting or not waiting[0].begin():
        return []
    return [waiting[0], *takewhile(lambda step: step.rides, waiting[1:])]


def _question(trip: list[Step[Any]]) -> tuple[Script, list[str], list[str | int]]:
    keys = [key for step in trip for key in step.keys]
    if len(trip) == 1:
        return trip[0].script, keys, trip[0].arguments()
    counts: list[str | int] = []
    arguments: list[str | int] = []
    for step in trip:
        own = step.arguments()
        counts += (len(step.keys), len(own))
        arguments += own
    return _together(*(step.script for step in trip)), keys, counts + arguments


def _tell(trip: list[Step[Any]], answer: list[Any]) -> None:
    if len(trip) == 1:
        trip[0]._take(answer)
        return
    text = answer[0].decode() if isinstance(answer[0], bytes) else answer[0]
    answers = text.split("\r")
    for step, words in zip(trip, answers, strict=False):
        if words.startswith("!"):
            step._fail(store_error(RuntimeError(words[1:])))
        else:
            step._take(words.split("\n"))
    for step in trip[len(answers) :]:
        step.passed_over()


def _fail(trip: list[Step[Any]], error: BaseException) -> None:
    for step in trip:
        step._fail(error)
    if not isinstance(error, StoreError):
        raise error


# Arguments: for each step the number of its keys and of its arguments; then the arguments of all. Answers
# with one text, since the client takes its time over each of many: for each step that was done a line of its
# words, or ``!`` and its error. A step that fails is an answer too, so that trouble with the keys of one part
# is that part's alone.
_HEAD = """
local keys, arguments, answers, key, at = KEYS, ARGV, {}, 0, %d
local function step(number, work)
  local last_key, last = key + tonumber(arguments[2 * number - 1]), at + tonumber(arguments[2 * number])
  local done, answer = pcall(work, {unpack(keys, key + 1, last_key)}, {unpack(arguments, at + 1, last)})
  key, at = last_key, last
  if done then
    local words = {}
    for place, word in ipairs(answer) do
      words[place] = type(word) == 'number' and string.format('%%.0f', word) or word
    end
    answers[number] = table.concat(words, '\\n')
  else
    answers[number] = '!' .. tostring(type(answer) == 'table' and answer.err or answer)
  end
  return done, answer
end
local function all() return {table.concat(answers, '\\r')} end
local done, answer
"""


@functools.lru_cache(maxsize=128)
def _together(*scripts: Script) -> Script:
    """One script of several."""
    parts = [_HEAD % (2 * len(scripts))]
    for number, script in enumerate(scripts, 1):
        parts.append(f"done, answer = step({number}, function(KEYS, ARGV)\n{script.source}\nend)\n")
        if script.goes_on is not None:
            parts.append(f"if not (done and {script.goes_on}) then return all() end\n")
    return Script("".join([*parts, "return all()"]))
