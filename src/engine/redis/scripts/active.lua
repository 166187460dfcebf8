-- Notes that a client did something of its own accord, or ends its session if it has not for too long.
-- ARGV   3 session, 4 ms after which it ends, or '' to note
-- gives  nil, or the patterns of the session that was ended
-- cost   constant; a step for each subscription of a session that ends
although_memory_is_short()
local id, limit, at = ARGV[3], tonumber(ARGV[4]), now()
local found = session(id, { 'active' })
if not found then return nil end
if not limit then
  redis.call('HSET', session_key(id), 'active', text(at))
  return nil
end
if at - (tonumber(found.active) or at) < limit then return nil end
return finish(id, 'inactive')
