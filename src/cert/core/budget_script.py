"""One step in the books of a shared budget, as the Lua script that Redis runs atomically.

Keys: ``state`` (generation, steps, time, sums), ``slots`` and ``order`` (spending by second, and the seconds
in order), ``open`` (reservations by expiry), ``held`` (their amounts and agents), ``agents`` (sums by agent).

Arguments: shared time last seen, microseconds since (least, most), generation known, steps known, generation
to begin with, the word ``reserve``, ``close`` or ``snapshot``. ``reserve`` goes on with id, amount, agent,
limit an hour, limit in total (-1: none), lifetime. Then pairs of id and amount to close (-1: all that is set
aside); under ``close`` the last pair is the one asked about, all others are late.

Every step may be sent twice, which does the work once: ids are unique, and closed ones are gone.
"""

from __future__ import annotations

from cert.core.budget_ledger import HOUR_SECONDS, MOST_AGENTS, OTHER_AGENTS
from cert.core.redis_scripts import Script
from cert.core.redis_time import SHARED_TIME

__all__ = ["BUDGET_STEP"]

_LUA = f"""
local state, slots, order, open, held, agents = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
{SHARED_TIME}
local known, new = ARGV[4], ARGV[6]
local generation = redis.call('HGET', state, 'generation')
if known ~= '' then
  local steps = tonumber(redis.call('HGET', state, 'steps') or '-1')
  if generation ~= known or steps < tonumber(ARGV[5]) then return {{'lost'}} end
end

local now = shared_time(state, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))
if not generation then
  generation = new
  redis.call('HSET', state, 'generation', new)
end
local steps = redis.call('HINCRBY', state, 'steps', 1)

local function whole(number) return string.format('%.0f', number) end
local function add(key, field, amount)
  if amount ~= 0 then redis.call('HINCRBY', key, field, whole(amount)) end
end
local function of(key, field) return tonumber(redis.call('HGET', key, field) or '0') end

local function close(identifier, spent)
  local note = redis.call('HGET', held, identifier)
  if not note then return -1 end
  local amount, agent = string.match(note, '^(%d+):(.*)$')
  amount = tonumber(amount)
  if spent < 0 then spent = amount end
  if spent > 0 then
    local slot = whole(math.ceil(now / 1000000))
    add(slots, slot, spent)
    redis.call('ZADD', order, slot, slot)
    add(state, 'hour', spent)
    add(state, 'total', spent)
  end
  add(state, 'reserved', -amount)
  if agent ~= '' then
    add(agents, 's:' .. agent, spent)
    add(agents, 'r:' .. agent, -amount)
  end
  redis.call('HDEL', held, identifier)
  redis.call('ZREM', open, identifier)
  return spent
end

local late = 0
for _, identifier in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', whole(now), 'LIMIT', 0, 1000)) do
  late = late + math.max(0, close(identifier, -1))
end
local over = whole(math.floor(now / 1000000) - {HOUR_SECONDS})
for _, slot in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', over)) do
  add(state, 'hour', -of(slots, slot))
  redis.call('HDEL', slots, slot)
  redis.call('ZREM', order, slot)
end

local word, charged, book = 'ok', -1, {{}}
local at = 8
if ARGV[7] == 'reserve' then at = 14 end
if ARGV[7] == 'snapshot' then book = redis.call('HGETALL', agents) end
while ARGV[at] do
  charged = close(ARGV[at], tonumber(ARGV[at + 1]))
  at = at + 2
  if ARGV[at] or ARGV[7] == 'reserve' then late = late + math.max(0, charged) end
end
if ARGV[7] == 'reserve' and redis.call('HEXISTS', held, ARGV[8]) == 0 then
  local amount, per_hour, in_total = tonumber(ARGV[9]), tonumber(ARGV[11]), tonumber(ARGV[12])
  local sought = of(state, 'reserved') + amount
  if per_hour >= 0 and of(state, 'hour') + sought > per_hour then
    word = 'hour'
  elseif in_total >= 0 and of(state, 'total') + sought > in_total then
    word = 'total'
  else
    local agent = ARGV[10]
    if agent ~= '' then
      local known = redis.call('HEXISTS', agents, 'r:' .. agent) == 1
      if not known and redis.call('HLEN', agents) >= {2 * MOST_AGENTS} then agent = '{OTHER_AGENTS}' end
      redis.call('HSETNX', agents, 's:' .. agent, 0)
      redis.call('HINCRBY', agents, 'r:' .. agent, whole(amount))
    end
    redis.call('HSET', held, ARGV[8], whole(amount) .. ':' .. agent)
    redis.call('ZADD', open, whole(now + tonumber(ARGV[13])), ARGV[8])
    add(state, 'reserved', amount)
  end
end
return {{word, generation, steps, now, of(state, 'hour'), of(state, 'total'), of(state, 'reserved'),
  late, charged, book}}
"""
BUDGET_STEP = Script(_LUA)
