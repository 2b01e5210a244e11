-- The machine of circuit_state.py, kept in Redis so that replicas share one circuit; keep the two alike.
--
-- KEYS  1 hash of the state, 2 sorted set of results by time, 3 sorted set of the failures among them
-- ARGV  1 action: check, acquire or record
--       2 time now in microseconds, or '' for the server's own (the only clock that replicas share)
--       3 epoch, 4 probe, 5 outcome, 6 pause that the server asked for, or ''         (record only)
--       All spans are in microseconds, but for the time to live, in milliseconds. SETTINGS are the policy's numbers,
--       written in before the script is sent: sent with each call, they would be most of what is sent.
-- Answers {state, epoch, probe, refused for, paused (1 or 0)}, where 'refused for' is 0 for a permit.

local hash, results, failures = KEYS[1], KEYS[2], KEYS[3]
local action = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local rate, minimum, window, row_limit, recovery, lease, pause, longest_pause, remembered, time_to_live = SETTINGS

-- Plain tostring() of Lua 5.1 keeps 14 digits; a time in microseconds has 16. Redis itself, to which numbers are handed
-- as they are, keeps 17.
local function text(number) return string.format('%.0f', number) end

-- Each command inside of Redis costs some microseconds, so all is read at once, and kept at the end in one write.
local kept = redis.call('HMGET', hash, 'state', 'epoch', 'opened', 'probe', 'probe_until', 'paused_until', 'row', 'seq',
  'asked', 'renewed')
local state = kept[1] or 'closed'
-- A circuit that is new, or was forgotten, starts at an epoch that no permit from before can have.
local epoch = tonumber(kept[2] or now)
local known = kept[2] or text(now)
-- A clock that was set back must not prolong any wait beyond the policy's, counted from when that is noticed.
local opened = math.min(tonumber(kept[3] or 0), now)
local probe = tonumber(kept[4] or 0)
local probe_until = math.min(tonumber(kept[5] or 0), now + lease)
local paused_until = math.min(tonumber(kept[6] or 0), now + longest_pause)
local tamed = kept[1]
  and (opened ~= tonumber(kept[3]) or probe_until ~= tonumber(kept[5]) or paused_until ~= tonumber(kept[6]))
local row = tonumber(kept[7] or 0)
local seq = tonumber(kept[8] or 0)
local renewed = tonumber(kept[10] or 0)
local renew = now < renewed or now - renewed > time_to_live * 250  -- a quarter of it
local changed = tamed or not kept[1]  -- more than the count of results
local forget, fresh = false, {}

if action ~= 'check' and now < tonumber(kept[9] or 0) then
  redis.call('HSET', hash, 'asked', now)
  for _, key in ipairs({results, failures}) do redis.call('ZREMRANGEBYSCORE', key, '(' .. text(now), '+inf') end
end

local function become(next_state)
  state, epoch, row, probe_until = next_state, epoch + 1, 0, 0
  if next_state == 'open' then opened = now end
  forget, changed, seq = true, true, 0
end

local function refused()
  if now < paused_until then return paused_until - now, 1 end
  if state == 'open' then return math.max(0, opened + recovery - now), 0 end
  if state == 'half_open' then return math.max(0, probe_until - now), 0 end
  return 0, 0
end

-- Counts a result, and says whether it opens the circuit, which only a failure does: what a success leaves for
-- later (old failures, results beyond those remembered) is cleared away before it could matter.
local function count(failed)
  seq = seq + 1
  row = failed and row + 1 or 0
  redis.call('ZADD', results, now, seq)
  if seq == 1 then fresh[1] = results end
  redis.call('ZREMRANGEBYSCORE', results, '-inf', now - window)
  if not failed and seq % 100 > 0 then return false end
  local calls = redis.call('ZCARD', results)
  if calls > remembered then
    for _, member in ipairs(redis.call('ZRANGE', results, 0, calls - remembered - 1)) do
      redis.call('ZREM', results, member)
      redis.call('ZREM', failures, member)
    end
    calls = remembered
  end
  if not failed then return false end
  redis.call('ZADD', failures, now, seq)
  redis.call('ZREMRANGEBYSCORE', failures, '-inf', now - window)
  local failed_calls = redis.call('ZCARD', failures)
  if failed_calls == 1 then fresh[#fresh + 1] = failures end
  if calls >= minimum then return failed_calls / calls >= rate end
  return row >= row_limit
end

local wait, paused = 0, 0
if action == 'record' then
  local outcome = ARGV[5]
  if outcome == 'throttled' then
    local asked = tonumber(ARGV[6])
    local span = math.min(asked or pause, longest_pause)
    paused_until, changed = math.max(paused_until, now + span), true
  end
  if known == ARGV[3] then
    if state == 'half_open' then
      if outcome == 'success' then
        become('closed')
      elseif probe == tonumber(ARGV[4]) then
        if outcome == 'failure' then become('open') else probe_until, changed = 0, true end
      end
    elseif outcome == 'success' or outcome == 'failure' then
      if count(outcome == 'failure') then become('open') end
    end
  end
  wait, paused = refused()
else
  wait, paused = refused()
  if action == 'acquire' and wait == 0 and state ~= 'closed' then
    if state == 'open' then become('half_open') end
    probe, probe_until, changed = probe + 1, now + lease, true
  end
end

-- What asks for more than a look writes something that a full Redis refuses, and before anything else: so it is done
-- as a whole or not at all, and such a Redis counts as none from the first call on.
if action ~= 'check' or tamed then
  if changed or renew then
    redis.call('HSET', hash, 'asked', now, 'state', state, 'epoch', epoch, 'opened', opened, 'probe',
      probe, 'probe_until', probe_until, 'paused_until', paused_until, 'row', row, 'seq', seq,
      'renewed', now)
    if forget then redis.call('DEL', results, failures) end
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, time_to_live) end
  elseif action == 'record' then
    redis.call('HSET', hash, 'asked', now, 'row', row, 'seq', seq)
    for _, key in ipairs(fresh) do redis.call('PEXPIRE', key, time_to_live) end
  else
    redis.call('HSET', hash, 'asked', now)
  end
end
return {state, text(epoch), state == 'closed' and '0' or text(probe), text(wait), paused}
