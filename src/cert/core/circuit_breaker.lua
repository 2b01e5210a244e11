-- The machine of circuit_state.py, kept in Redis so that replicas share one circuit; keep the two alike.
--
-- KEYS  1 hash of the state, 2 sorted set of results by time, 3 sorted set of the failures among them
-- ARGV  1 action: check, acquire or record
--       2 time now in microseconds, or '' for the server's own (the only clock that replicas share)
--       3 failure rate, 4 minimum calls, 5 window, 6 failures in a row, 7 recovery, 8 probe lease,
--       9 pause, 10 longest pause, 11 results remembered, 12 time to live in milliseconds
--       13 epoch, 14 probe, 15 outcome, 16 pause that the server asked for, or ''       (record only)
--       All spans are in microseconds.
-- Answers {state, epoch, probe, refused for, paused (1 or 0)}, where 'refused for' is 0 for a permit.

local hash, results, failures = KEYS[1], KEYS[2], KEYS[3]
local action = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local rate, minimum, window = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local row_limit, recovery, lease = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local pause, longest_pause, remembered = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

-- Plain tostring() of Lua 5.1 keeps 14 digits; a time in microseconds has 16.
local function text(number) return string.format('%.0f', number) end

-- The first write is one that a full Redis refuses: what would change anything runs as a whole or not at all.
if action ~= 'check' then redis.call('HSET', hash, 'asked', text(now)) end

local kept = redis.call('HMGET', hash, 'state', 'epoch', 'opened', 'probe', 'probe_until', 'paused_until', 'row', 'seq')
local state = kept[1] or 'closed'
-- A circuit that is new, or was forgotten, starts at an epoch that no permit from before can have.
local epoch = tonumber(kept[2] or now)
-- A clock that was set back must not prolong any wait beyond the policy's, counted from when that is noticed.
local opened = math.min(tonumber(kept[3] or 0), now)
local probe = tonumber(kept[4] or 0)
local probe_until = math.min(tonumber(kept[5] or 0), now + lease)
local paused_until = math.min(tonumber(kept[6] or 0), now + longest_pause)
local tamed = kept[1] and (text(opened) ~= kept[3] or text(probe_until) ~= kept[5] or text(paused_until) ~= kept[6])
local row = tonumber(kept[7] or 0)
local seq = tonumber(kept[8] or 0)

local function become(next_state)
  state, epoch, row, probe_until = next_state, epoch + 1, 0, 0
  if next_state == 'open' then opened = now end
  redis.call('DEL', results, failures)
end

local function refused()
  if now < paused_until then return paused_until - now, 1 end
  if state == 'open' then return math.max(0, opened + recovery - now), 0 end
  if state == 'half_open' then return math.max(0, probe_until - now), 0 end
  return 0, 0
end

local function count(failed)
  seq = seq + 1
  redis.call('ZADD', results, text(now), text(seq))
  if failed then
    row = row + 1
    redis.call('ZADD', failures, text(now), text(seq))
  else
    row = 0
  end
  for _, key in ipairs({results, failures}) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now - window))
    redis.call('ZREMRANGEBYSCORE', key, '(' .. text(now), '+inf')
  end
  local calls = redis.call('ZCARD', results)
  if calls > remembered then
    for _, member in ipairs(redis.call('ZRANGE', results, 0, calls - remembered - 1)) do
      redis.call('ZREM', results, member)
      redis.call('ZREM', failures, member)
    end
    calls = remembered
  end
  local failed_calls = redis.call('ZCARD', failures)
  if calls >= minimum then return failed_calls / calls >= rate end
  return row >= row_limit
end

local wait, paused = 0, 0
if action == 'record' then
  local outcome = ARGV[15]
  if outcome == 'throttled' then
    local asked = tonumber(ARGV[16])
    local span = math.min(asked or pause, longest_pause)
    paused_until = math.max(paused_until, now + span)
  end
  if text(epoch) == ARGV[13] then
    if state == 'half_open' then
      if outcome == 'success' then
        become('closed')
      elseif text(probe) == ARGV[14] then
        if outcome == 'failure' then become('open') else probe_until = 0 end
      end
    elseif outcome == 'success' or outcome == 'failure' then
      if count(outcome == 'failure') and outcome == 'failure' then become('open') end
    end
  end
  wait, paused = refused()
else
  wait, paused = refused()
  if action == 'acquire' and wait == 0 and state ~= 'closed' then
    if state == 'open' then become('half_open') end
    probe = probe + 1
    probe_until = now + lease
  end
end

if tamed or action == 'record' or (action == 'acquire' and wait == 0 and (state ~= 'closed' or not kept[1])) then
  redis.call('HSET', hash, 'state', state, 'epoch', text(epoch), 'opened', text(opened), 'probe', text(probe),
    'probe_until', text(probe_until), 'paused_until', text(paused_until), 'row', text(row), 'seq', text(seq))
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[12]) end
end
return {state, text(epoch), state == 'closed' and '0' or text(probe), text(wait), paused}
