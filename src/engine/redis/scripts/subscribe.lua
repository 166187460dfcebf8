-- Adds a subscription, from now on, and tells the node that holds the session. One that exists keeps its start.
-- ARGV   3 session, 4 pattern, 5 subscriptions that the session may have, 6 wished replay: '' | all | position after
--        which, 7 age in ms and 8 number of messages beyond which nothing is replayed
-- gives  {added, its start, position past which the replay lies or '', gap: 1 | ''} | {kept, its start, position
--        past which its replay is still due or '', gap} | {too_many} | {unknown}
-- cost   constant; with a replay some fifty steps
local id, pattern, wish = ARGV[3], ARGV[4], ARGV[6]
local found = session(id, { 'node', 'version', 'count', 'extend_at' })
if not found then return { 'unknown' } end
local known = redis.call('HGET', subscriptions_key(id), pattern)
if known then
  -- Asked again, because the first answer was lost: the same, as far as it still holds.
  local since, progress, told = string.match(known, '^(%d+):?(%d*):?(g?)$')
  return { 'kept', since, progress, told == 'g' and '1' or '' }
end
if tonumber(found.count) >= tonumber(ARGV[5]) then return { 'too_many' } end
local at = now()
local since = tick(at, 1)
local log, head = root .. 'log:' .. pattern, tonumber(redis.call('GET', root .. 'head:' .. pattern) or nil)

-- The position past which everything lies that is kept. Entries are numbered: the last one that is too old is found by
-- halving.
local function kept_past(age, length)
  local past = math.max((at - age) * 1024 - 1, 0)
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local spare = newest and (tonumber(newest[2][6]) or 0) - length or 0
  if spare <= 0 then return past end
  local low, high = past, tonumber(string.match(newest[1], '^%d+'))
  while high > low do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', log, '(' .. text(middle) .. '-0', '+', 'COUNT', 1)[1]
    if (tonumber(entry[2][6]) or 0) <= spare then
      low = tonumber(string.match(entry[1], '^%d+'))
    else
      high = middle
    end
  end
  return low
end

local from, gap = nil, false
if wish ~= '' then
  local past = head and kept_past(tonumber(ARGV[7]), tonumber(ARGV[8])) or since
  if wish == 'all' then
    from = past
  else
    local after = math.min(tonumber(wish), since)
    from = math.max(after, past)
    local entry = head and redis.call('XRANGE', log, '(' .. text(after) .. '-0', '+', 'COUNT', 1)[1]
    if entry then
      gap = tonumber(string.match(entry[1], '^%d+')) <= past or tonumber(entry[2][2]) > after
    else
      -- Of a log that is not there nothing is known.
      gap = (head or since) > after
    end
  end
  -- A gap that lies before its start is told now, and not again.
  local first = head and redis.call('XRANGE', log, '(' .. text(from) .. '-0', '+', 'COUNT', 1)[1]
  from = math.min(math.max(from, first and tonumber(first[2][2]) or head or since), since)
end

local start, version = text(since), text(found.version + 1)
local due = from and head and from < since
local value = due and start .. ':' .. text(from) .. (gap and ':g' or '') or start
redis.call('HSET', subscriptions_key(id), pattern, value)
extend(subscriptions_key(id), ttl)
-- What is made here may live for less than what the session has: all are extended in time for that.
local extend_at = math.min(tonumber(found.extend_at) or math.huge, tonumber(extension(at)))
redis.call('HSET', session_key(id), 'version', version, 'count', text(found.count + 1), 'extend_at', text(extend_at))
enter(pattern, id, at, start)
tell(found.node, 'resubscribed ' .. id .. ' ' .. version)
return { 'added', start, from and text(from) or '', gap and '1' or '' }
