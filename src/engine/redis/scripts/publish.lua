-- Stores messages: each in the log of every pattern that covers its channel and has a subscriber (and in that of its
-- channel, if that is retained), under one position, and announces it on the feed of each such log.
-- ARGV   3 age in ms beyond which entries go, 4 entries that a log keeps, 5 ms for which a repetition is recognised, 6
--        fingerprints in a generation, 7 channels that may be retained, 8 number of messages; then for each: the channel and
--        the message ("<channel> <array>"), its fingerprint or '', age in ms and number of messages to be retained ("<age>
--        <number>") or '', the patterns with spaces between (the channel itself first)
-- gives  for each: its position, = if it was stored before, ! and an error, or !retained
-- cost   a step for each pattern of the channel, four to eight commands for each that has a subscriber, three for each message
--        more on a log; two for a fingerprint, four for a retained channel; nothing grows with the number of subscribers
local age, keep = tonumber(ARGV[3]), tonumber(ARGV[4])
local window, generation, max_retained, count = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local at = now()
local position, outcomes, argument = tick(at, count), {}, 9
local young, old, kept_key = root .. 'seen:young', root .. 'seen:old', root .. 'kept'
local remembers = false
-- What this call has read, and nothing else changes meanwhile: where a log ended (false: there is none), and where its messages
-- are announced.
local ends, places = {}, {}

-- Two generations of fingerprints: the older goes when the younger has reached its age, or is full.
local function remember()
  remembers = true
  local since = tonumber(redis.call('GET', root .. 'seen:since') or nil)
  if since and at - since < window and redis.call('SCARD', young) < generation then return end
  redis.call('UNLINK', old)
  if since and at - since < 2 * window and redis.call('EXISTS', young) == 1 then redis.call('RENAME', young, old) end
  redis.call('UNLINK', young)
  -- An empty member, for the time to live.
  redis.call('SADD', young, '')
  redis.call('PEXPIRE', young, 3 * window)
  redis.call('SET', root .. 'seen:since', text(at), 'PX', 3 * window)
end

-- Of a log with one subscriber only the node is told that holds it now, which need not listen to the log; if none does, the
-- next attach brings what waits. It is told on the connection on which logs are announced, too.
local function place(pattern)
  local members = root .. 'subscribers:' .. pattern
  if redis.call('SCARD', members) ~= 1 then return { announce .. 'log:' .. pattern, '' } end
  local node = redis.call('HGET', root .. 'session:' .. redis.call('SRANDMEMBER', members), 'node')
  return node and node ~= '' and { announce .. 'node:' .. node, 'log ' .. pattern .. ' ' } or {}
end

local function announce_entry(pattern, number, previous, message)
  places[pattern] = places[pattern] or place(pattern)
  local channel, prefix = unpack(places[pattern])
  if channel then redis.call('PUBLISH', channel, prefix .. number .. ' ' .. previous .. ' ' .. message) end
end

local function append(pattern, at_position, message, kept_age, kept_length)
  local log, id, previous = root .. 'log:' .. pattern, at_position .. '-0', ends[pattern]
  local most, oldest, life = keep, age, ttl
  if kept_age then
    -- What is retained, and what its subscribers may still need: a replay under way must not be overtaken.
    most, oldest = keep + kept_length, age + kept_age
    -- It is extended once in a quarter of the age.
    life = ttl + math.ceil(kept_age / 1000 * 1.25)
  end
  local stored, number
  if kept_age then
    -- Numbered, so that the newest so many are found without counting.
    local last = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
    if last.err then return '!' .. last.err end
    number = text((last[1] and tonumber(last[1][2][6]) or 0) + 1)
    stored = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', '~', most, id, 'p', previous, 'm', message, 'n', number)
  else
    stored = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', '~', most, id, 'p', previous, 'm', message)
  end
  if type(stored) == 'table' and stored.err then return '!' .. stored.err end
  local fresh = not stored
  if fresh then redis.call('XADD', log, id, 'p', previous, 'm', message, 'n', number or '0') end
  redis.call('SET', root .. 'head:' .. pattern, at_position, 'KEEPTTL')
  ends[pattern] = at_position
  -- Keys are refreshed, and old entries go, when a log crosses into another slice of time.
  local slice = oldest / 4
  if fresh or math.floor(at / slice) ~= math.floor(previous / 1024 / slice) then
    redis.call('XTRIM', log, 'MINID', '~', text(math.max(at - oldest, 0) * 1024))
    extend(log, life)
    extend(root .. 'head:' .. pattern, life)
    if kept_age then
      redis.call('ZADD', root .. 'logs', 'NX', text(at), pattern)
      extend(kept_key, life)
    end
  end
  -- Without a subscriber nothing but what is retained has to be there.
  if kept_age and redis.call('EXISTS', root .. 'subscribers:' .. pattern) == 0 and not lingers(pattern) then
    redis.call('XTRIM', log, 'MAXLEN', kept_length)
  end
  announce_entry(pattern, at_position, previous, message)
end

-- Reads the ends of these logs, those that this call has not read.
local function read_ends(patterns)
  local keys, unread = {}, {}
  for _, pattern in ipairs(patterns) do
    if ends[pattern] == nil then
      keys[#keys + 1] = root .. 'head:' .. pattern
      unread[#unread + 1] = pattern
    end
  end
  if not keys[1] then return end
  for index, at_end in ipairs(redis.call('MGET', unpack(keys))) do ends[unread[index]] = at_end end
end

local function store(message, fingerprint, kept_age, kept_length, patterns)
  local channel, at_position, failed = patterns[1], text(position), nil
  read_ends(patterns)
  if kept_age and redis.call('HEXISTS', kept_key, channel) == 0 and redis.call('HLEN', kept_key) >= max_retained then
    return '!retained'
  end
  if fingerprint ~= '' and window > 0 then
    if not remembers then remember() end
    if redis.call('SISMEMBER', old, fingerprint) == 1 or redis.call('SADD', young, fingerprint) == 0 then return '=' end
  end
  if kept_age then
    redis.call('HSET', kept_key, channel, text(kept_age))
    if not ends[channel] then
      -- It is the first; or the head was lost, and the log has all that was published.
      local last = redis.pcall('XREVRANGE', root .. 'log:' .. channel, '+', '-', 'COUNT', 1)
      if not last.err then
        ends[channel] = last[1] and string.match(last[1][1], '^%d+') or text(position - 1)
        redis.call('SET', root .. 'head:' .. channel, ends[channel], 'EX', ttl)
      else
        failed = '!' .. last.err
      end
    end
  end
  for index, pattern in ipairs(patterns) do
    if ends[pattern] then
      local kept = index == 1
      failed = append(pattern, at_position, message, kept and kept_age or nil, kept and kept_length or nil) or failed
    end
  end
  if failed and fingerprint ~= '' then redis.call('SREM', young, fingerprint) end
  return failed or at_position
end

for index = 1, count do
  local kept_age, kept_length = string.match(ARGV[argument + 2], '^(%d+) (%d+)$')
  local patterns = {}
  for pattern in string.gmatch(ARGV[argument + 3], '[^ ]+') do patterns[#patterns + 1] = pattern end
  outcomes[index] = store(ARGV[argument], ARGV[argument + 1], tonumber(kept_age), tonumber(kept_length), patterns)
  position = position + 1
  argument = argument + 4
end
return outcomes
