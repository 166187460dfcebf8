-- Makes a session. Its cursor starts at the clock.
-- ARGV   3 session, 4 life in ms, 5 sessions that may exist
-- gives  created | too_many
-- cost   constant
local id, life = ARGV[3], ARGV[4]
local deadlines = root .. 'deadlines'
if redis.call('ZCARD', deadlines) >= tonumber(ARGV[5]) then return 'too_many' end
local at = now()
redis.call('HSET', session_key(id), 'era', era(), 'life', life, 'touched', text(at), 'epoch', '0', 'version', '0',
  'count', '0', 'cursor', text(tick(at, 1)))
redis.call('EXPIRE', session_key(id), ttl)
redis.call('ZADD', deadlines, text(at + life), id)
redis.call('EXPIRE', deadlines, ttl)
return 'created'
