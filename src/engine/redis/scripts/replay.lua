-- Reads on in the replay of a subscription. One that has come to its end is noted as through.
-- ARGV   3 session, 4 epoch, 5 version, 6 channel, 7 start of the subscription, 8 position past which to read, 9 messages
--        and 10 bytes at the most (but at least one message)
-- gives  {chunk, through: 1 | '', {position, message, ...}, gap: 1 | ''} | {gap, {pattern, ...}}: the session was ended
--        | {outdated} | {stale} | {unknown}
-- cost   a step for each message that is given
local id, channel, since = ARGV[3], ARGV[6], ARGV[7]
local max_messages, max_bytes = tonumber(ARGV[9]), tonumber(ARGV[10])
local found = session(id, { 'epoch', 'version', 'traits' })
if not found then return { 'unknown' } end
if found.epoch ~= ARGV[4] then return { 'stale' } end
local start = redis.call('HGET', subscriptions_key(id), channel) or ''
if found.version ~= ARGV[5] or string.match(start, '^%d+') ~= since then return { 'outdated' } end

-- What was trimmed, the first entry that is left or the head tells.
local log = root .. 'log:' .. channel
local first = redis.call('XRANGE', log, '(' .. ARGV[8] .. '-0', '+', 'COUNT', 1)[1]
local before = first and first[2][2] or redis.call('GET', root .. 'head:' .. channel) or since
local overtaken, gap = tonumber(before) > tonumber(ARGV[8]), false
-- What is trimmed goes from the front: where older entries are left, this was lost.
if overtaken and redis.call('XRANGE', log, '-', ARGV[8] .. '-0', 'COUNT', 1)[1] then overtaken, gap = false, true end

local flat, count, bytes, last, through, step = {}, 0, 0, ARGV[8], false, 4
repeat
  local chunk = redis.call('XRANGE', log, '(' .. last .. '-0', since .. '-0', 'COUNT', step)
  through = #chunk < step
  for _, entry in ipairs(chunk) do
    local position, message = string.match(entry[1], '^%d+'), entry[2][4]
    if count == max_messages or (count > 0 and bytes + #message > max_bytes) then
      through, step = false, 0
      break
    end
    -- Each names the one before it.
    gap = gap or tonumber(entry[2][2]) > tonumber(last)
    flat[#flat + 1], flat[#flat + 2] = position, message
    count, bytes, last = count + 1, bytes + #message, position
  end
  -- As many as may still fit, by the size of those before; few, as large ones may follow small ones.
  if step > 0 and count > 0 then step = math.max(1, math.min(16, math.ceil((max_bytes - bytes) / (bytes / count)))) end
until through or step == 0
if through and count > 0 then
  -- So does what follows, or the head.
  local follower = redis.call('XRANGE', log, '(' .. last .. '-0', '+', 'COUNT', 1)[1]
  local newest = follower and follower[2][2] or redis.call('GET', root .. 'head:' .. channel) or last
  gap = gap or tonumber(newest) > tonumber(last)
end
local is_told = string.find(found.traits, 'r') ~= nil
if overtaken and not is_told then return { 'gap', finish(id, 'gap') or {} } end
-- What Redis lost in the middle is not there for another session either: a client that can not be told gets what is left.
gap = overtaken or (gap and is_told)
-- A gap is told until the client is past it.
if count == 0 and not gap then
  although_memory_is_short()
  redis.call('HSET', subscriptions_key(id), channel, since)
end
return { 'chunk', through and '1' or '', flat, gap and '1' or '' }
