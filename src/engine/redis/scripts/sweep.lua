-- Ends overdue sessions and looks after logs. Any node may run it at any time.
-- ARGV   3 sessions and 4 logs at the most, 5 time-out in ms, 6 a random number from 0 to 1, 7 pause in ms after which
--        sessions are spared, 8 age in ms beyond which entries go
-- gives  {more: 1 | '' (there are more overdue sessions), {session, pattern, ...}, ...}
-- cost   a step for each subscription of the sessions that end, and some twenty for each log
although_memory_is_short()
local SAMPLE = 20 -- subscribers of a log that are looked at
local STEPS = 500 -- sessions and subscriptions that are ended, about: a script holds up everybody else
local at, meta = now(), root .. 'meta'
local times = redis.call('HMGET', meta, 'swept', 'spared_until')
local swept, spared = tonumber(times[1] or nil), tonumber(times[2] or nil)
redis.call('HSET', meta, 'swept', text(at))
if swept and (at - swept > tonumber(ARGV[7]) or at < swept) then
  -- Redis was away, or its clock jumped: nobody could be heard of. Clients get one time-out to come back.
  spared = at + math.floor(tonumber(ARGV[5]) * (1 + tonumber(ARGV[6]) / 10))
  redis.call('HSET', meta, 'spared_until', text(spared))
end
for _, name in ipairs({ 'meta', 'deadlines', 'logs', 'era' }) do redis.call('EXPIRE', root .. name, ttl) end

local ended = { '' }
if not spared or at >= spared then
  local overdue = redis.call('ZRANGEBYSCORE', root .. 'deadlines', '-inf', text(at), 'LIMIT', 0, ARGV[3])
  for index, id in ipairs(overdue) do
    local gone = finish(id, 'expired') or {}
    table.insert(gone, 1, id)
    ended[#ended + 1], spent = gone, spent + 1
    if spent >= STEPS or index == tonumber(ARGV[3]) then
      ended[1] = '1'
      break
    end
  end
end

-- What is retained must be looked after; what is not there any more is not retained.
for _, pattern in ipairs(redis.call('HRANDFIELD', root .. 'kept', SAMPLE)) do
  if redis.call('EXISTS', root .. 'head:' .. pattern) == 0 then
    redis.call('HDEL', root .. 'kept', pattern)
  else
    redis.call('ZADD', root .. 'logs', 'NX', text(at), pattern)
  end
end

local age = tonumber(ARGV[8])
for _, pattern in ipairs(redis.call('ZRANGEBYSCORE', root .. 'logs', '-inf', text(at), 'LIMIT', 0, ARGV[4])) do
  redis.call('ZADD', root .. 'logs', text(at + age / 2), pattern)
  local kept = retained(pattern)
  redis.call('XTRIM', root .. 'log:' .. pattern, 'MINID', kept and '=' or '~',
    text(math.max(at - age - (kept or 0), 0) * 1024))
  local members = redis.call('SRANDMEMBER', root .. 'subscribers:' .. pattern, SAMPLE)
  for _, member in ipairs(members) do
    -- Redis lost the session, which therefore could not leave.
    if redis.call('HEXISTS', subscriptions_key(member), pattern) == 0 then leave(pattern, member) end
  end
  if kept and redis.call('XLEN', root .. 'log:' .. pattern) == 0 then
    -- Nothing is left to be retained. The next publish retains again.
    redis.call('HDEL', root .. 'kept', pattern)
  end
  if #members == 0 then leave(pattern, '') end
end
return ended
