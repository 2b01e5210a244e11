"""One step in the books of a shared budget, as the Lua script that Redis runs atomically.

Keys: ``state`` (generation, steps, time, sums), ``slots`` and ``order`` (spending by second, and the seconds
in order), ``open`` (reservations by expiry), ``held`` (their amounts and agents), ``agents`` (sums by agent).

Arguments: shared time last seen, microseconds since (least, most), generation known, steps known, generation
to begin with, the word ``reserve``, ``close`` or ``snapshot``. ``reserve`` goes on with id, amount, agent.
Then pairs of id and amount to close (-1: all that is set aside); under ``close`` the last pair is the one
asked about, all others are late. The limits are written in: limit an hour, limit in total (-1: none),
lifetime.

Every step may be sent twice, which does the work once: ids are unique, and closed ones are gone.

Each command inside of Redis costs some microseconds: sums are read together, reckoned with here, and kept in
one write, which is the first and one that a full Redis refuses: a step is done as a whole or not at all.
Amounts are exact up to 2^53, which is nine thousand million dollars.
"""

from __future__ import annotations

import functools

from cert.core.budget_ledger import HOUR_SECONDS, MOST_AGENTS, OTHER_AGENTS, BudgetLimits
from cert.core.redis_scripts import Script
from cert.core.redis_time import SHARED_TIME

__all__ = ["budget_step"]


@functools.cache
def budget_step(limits: BudgetLimits) -> Script:
    """Return the script for books under these limits."""
    per_hour, total = (-1 if limit is None else limit for limit in (limits.per_hour, limits.total))
    lifetime = round(limits.expires_after * 1_000_000)
    return Script(
        f"""
local per_hour, in_total, lifetime = {per_hour}, {total}, {lifetime}
local state, slots, order, open, held, agents = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
{SHARED_TIME}
local known, action = ARGV[4], ARGV[7]
local kept = redis.call('HMGET', state, 'generation', 'steps', 'last', 'offset', 'hour', 'reserved', 'total',
  'due')
local generation, steps = kept[1], tonumber(kept[2] or '-1')
if known ~= '' and (generation ~= known or steps < tonumber(ARGV[5])) then return {{'lost'}} end

local now, offset = shared_time(kept[3], kept[4], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
generation, steps = generation or ARGV[6], math.max(0, steps) + 1
local hour, reserved, total = tonumber(kept[5] or '0'), tonumber(kept[6] or '0'), tonumber(kept[7] or '0')


-- Reads: what is to be closed, by id, and what that makes of the sums.
local closings, expired, slot, spending = {{}}, {{}}, math.ceil(now / 1000000), 0
local function close(identifier, spent)
  local note = not closings[identifier] and redis.call('HGET', held, identifier)
  if not note then return -1 end
  local amount, agent = string.match(note, '^(%d+):(.*)$')
  amount = tonumber(amount)
  if spent < 0 then spent = amount end
  closings[identifier] = {{amount, spent, agent}}
  hour, total, reserved, spending = hour + spent, total + spent, reserved - amount, spending + spent
  return spent
end

local late, word, charged = 0, 'ok', -1
local due = tonumber(kept[8] or '0')
local look = now >= due
if look then
  for _, identifier in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', now, 'LIMIT', 0, 1000)) do
    late = late + math.max(0, close(identifier, -1))
  end
  expired = redis.call('ZRANGEBYSCORE', order, '-inf', math.floor(now / 1000000) - {HOUR_SECONDS})
  for _, second in ipairs(expired) do hour = hour - tonumber(redis.call('HGET', slots, second) or '0') end
end
for at = action == 'reserve' and 11 or 8, #ARGV, 2 do
  charged = close(ARGV[at], tonumber(ARGV[at + 1]))
  if ARGV[at + 2] or action == 'reserve' then late = late + math.max(0, charged) end
end
local id, amount, agent, new = ARGV[8], tonumber(ARGV[9]), ARGV[10], false
local reserve = action == 'reserve' and redis.call('HEXISTS', held, id) == 0
if reserve then
  if per_hour >= 0 and hour + reserved + amount > per_hour then
    word, reserve = 'hour', false
  elseif in_total >= 0 and total + reserved + amount > in_total then
    word, reserve = 'total', false
  else
    reserved, due = reserved + amount, math.min(due, now + lifetime)
    new = agent ~= '' and redis.call('HEXISTS', agents, 'r:' .. agent) == 0
    if new and redis.call('HLEN', agents) >= {2 * MOST_AGENTS} then agent = '{OTHER_AGENTS}' end
  end
end

-- Writes: the state as a whole, then what it sums up.
if spending > 0 then due = math.min(due, (slot + {HOUR_SECONDS}) * 1000000) end
redis.call('HSET', state, 'generation', generation, 'steps', steps, 'last', now, 'offset', offset,
  'hour', hour, 'reserved', reserved, 'total', total, 'due', due)
for _, second in ipairs(expired) do
  redis.call('HDEL', slots, second)
  redis.call('ZREM', order, second)
end
if spending > 0 and redis.call('HINCRBY', slots, slot, spending) == spending then
  redis.call('ZADD', order, slot, slot)
end
for identifier, closing in pairs(closings) do
  local amount, spent, agent = closing[1], closing[2], closing[3]
  if agent ~= '' then
    if spent > 0 then redis.call('HINCRBY', agents, 's:' .. agent, spent) end
    if amount > 0 then redis.call('HINCRBY', agents, 'r:' .. agent, -amount) end
  end
  redis.call('HDEL', held, identifier)
  redis.call('ZREM', open, identifier)
end
if reserve then
  if agent ~= '' then
    if new then redis.call('HSETNX', agents, 's:' .. agent, 0) end
    redis.call('HINCRBY', agents, 'r:' .. agent, amount)
  end
  redis.call('HSET', held, id, string.format('%.0f:%s', amount, agent))
  redis.call('ZADD', open, now + lifetime, id)
end
if look then
  -- When there may be something to look for again.
  local first, second = redis.call('ZRANGE', open, 0, 0, 'WITHSCORES'), redis.call('ZRANGE', order, 0, 0)
  due = math.min(tonumber(first[2] or '9e15'), ((tonumber(second[1]) or 9e9) + {HOUR_SECONDS}) * 1000000)
  redis.call('HSET', state, 'due', due)
end
local answer = {{word, generation, steps, now, hour, total, reserved, late, charged}}
if action == 'snapshot' then answer[10] = redis.call('HGETALL', agents) end
return answer
""",
        goes_on="answer[1] == 'ok'",
    )
