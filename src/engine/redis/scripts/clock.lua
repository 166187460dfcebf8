-- Stands before every script: the partition's keys and its clock.
-- KEYS[1]  root of the partition's keys, with the hash tag: {weft:0}:
-- ARGV[1]  time to live of keys that are written, seconds
-- ARGV[2]  root of the pub/sub channels
local root, ttl, announce = KEYS[1], tonumber(ARGV[1]), ARGV[2]

-- Positions have 16 digits: tostring, .. and cjson would print 14.
local function text(number)
  return string.format('%.0f', number)
end

-- Milliseconds since 1970 by Redis' clock: one clock for all nodes.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) --[[skew]]
end

local function clock()
  return tonumber(redis.call('GET', root .. 'clock') or '0')
end

-- Whether a log has to be there although it may have no subscriber: one may return for it.
local function lingers(pattern)
  return (tonumber(redis.call('GET', root .. 'lingers:' .. pattern) or nil) or 0) > now()
end

-- A key lives for so many seconds at least. Never less than before: another node may have longer time-outs.
local function extend(key, life)
  if redis.call('TTL', key) < life then redis.call('EXPIRE', key, life) end
end

-- Moves the clock on by `count` positions; gives the first of them.
local function tick(at, count)
  local first = math.max(clock() + 1, at * 1024)
  redis.call('SET', root .. 'clock', text(first + count - 1), 'EX', ttl)
  return first
end
