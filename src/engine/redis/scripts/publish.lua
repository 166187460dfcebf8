-- Stores messages: each in the log of every pattern that covers its channel and has a subscriber, under one position,
-- and announces it on the feed of each such log.
-- ARGV   3 age in ms beyond which entries go, 4 entries that a log keeps, 5 number of messages; then for each: the
--        channel and the message ("<channel> <array>"), the number of its patterns, the patterns
-- gives  for each: its position, or ! and an error
-- cost   a step for each pattern of the channel, three commands for each that has a subscriber; nothing grows with the
--        number of subscribers
local age, keep, count = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local at = now()
local position, outcomes, argument = tick(at, count), {}, 6
-- Keys are refreshed, and old entries go, when a log crosses into another slice of time.
local slice = age / 4

local function append(pattern, previous, message)
  local log, id = root .. 'log:' .. pattern, text(position) .. '-0'
  local stored = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', '~', keep, id, 'p', previous, 'm', message)
  if type(stored) == 'table' and stored.err then return '!' .. stored.err end
  local fresh = not stored
  if fresh then redis.call('XADD', log, id, 'p', previous, 'm', message) end
  redis.call('SET', root .. 'head:' .. pattern, text(position), 'KEEPTTL')
  if fresh or math.floor(at / slice) ~= math.floor(previous / 1024 / slice) then
    redis.call('XTRIM', log, 'MINID', '~', text(math.max(at - age, 0) * 1024))
    redis.call('EXPIRE', log, ttl)
    redis.call('EXPIRE', root .. 'head:' .. pattern, ttl)
  end
  redis.call('PUBLISH', announce .. 'log:' .. pattern, text(position) .. ' ' .. previous .. ' ' .. message)
end

for index = 1, count do
  local message, patterns = ARGV[argument], tonumber(ARGV[argument + 1])
  local keys = {}
  for offset = 1, patterns do keys[offset] = root .. 'head:' .. ARGV[argument + 1 + offset] end
  local heads, failed = redis.call('MGET', unpack(keys)), nil
  for offset = 1, patterns do
    if heads[offset] then failed = append(ARGV[argument + 1 + offset], heads[offset], message) or failed end
  end
  outcomes[index] = failed or text(position)
  position = position + 1
  argument = argument + 2 + patterns
end
return outcomes
