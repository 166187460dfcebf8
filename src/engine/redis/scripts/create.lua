-- Makes a session. Its cursor starts at the clock, or where it is resumed.
-- ARGV   3 session, 4 life in ms, 5 sessions that may exist, 6 traits: a (ack), r (resume), p (positions), 7 position at
--        which it is resumed or '', then the patterns that it is subscribed to, each with its start if that is later,
--        and with the position past which a replay is due or ''
-- gives  {created, start} | {too_many}
-- cost   a step for each pattern
local id, life = ARGV[3], ARGV[4]
local deadlines = root .. 'deadlines'
if redis.call('ZCARD', deadlines) >= tonumber(ARGV[5]) then return { 'too_many' } end
local at = now()
local first = tick(at, 1)
local start = text(math.min(tonumber(ARGV[7]) or first, first))
local count = 0
-- Whoever tries again after an answer that was lost starts anew.
redis.call('DEL', subscriptions_key(id))
for index = 8, #ARGV, 3 do
  local since = math.min(math.max(tonumber(ARGV[index + 1]), tonumber(start)), first)
  local due = tonumber(ARGV[index + 2])
  local value = due and due < since and text(since) .. ':' .. text(due) or text(since)
  if redis.call('HSETNX', subscriptions_key(id), ARGV[index], value) == 1 then
    count = count + 1
    -- What is new begins now, so that it has a gap to tell of.
    enter(ARGV[index], id, at, text(first))
  end
end
redis.call('EXPIRE', subscriptions_key(id), ttl)
redis.call('HSET', session_key(id), 'era', era(), 'life', life, 'extend_at', extension(at), 'active', text(at),
  'epoch', '0', 'version', text(count), 'count', text(count), 'cursor', start, 'traits', ARGV[6])
redis.call('EXPIRE', session_key(id), ttl)
redis.call('ZADD', deadlines, text(at + life), id)
redis.call('EXPIRE', deadlines, ttl)
return { 'created', start }
