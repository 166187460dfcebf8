-- Removes a subscription and tells the node that holds the session.
-- ARGV   3 session, 4 pattern
-- gives  removed | absent | unknown
-- cost   constant
although_memory_is_short()
local id, pattern = ARGV[3], ARGV[4]
local found = session(id, { 'node', 'version', 'count' })
if not found then return 'unknown' end
if redis.call('HDEL', subscriptions_key(id), pattern) == 0 then return 'absent' end
local version = text(found.version + 1)
redis.call('HSET', session_key(id), 'version', version, 'count', text(found.count - 1))
tell(found.node, 'resubscribed ' .. id .. ' ' .. version)
leave(pattern, id)
return 'removed'
