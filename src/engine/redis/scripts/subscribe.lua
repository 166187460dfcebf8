-- Adds a subscription, from now on, and tells the node that holds the session. One that exists keeps its start.
-- ARGV   3 session, 4 pattern, 5 subscriptions that the session may have
-- gives  {added, its start} | {kept} | {too_many} | {unknown}
-- cost   constant
local id, pattern = ARGV[3], ARGV[4]
local found = session(id, { 'node', 'version', 'count' })
if not found then return { 'unknown' } end
if redis.call('HEXISTS', subscriptions_key(id), pattern) == 1 then return { 'kept' } end
if tonumber(found.count) >= tonumber(ARGV[5]) then return { 'too_many' } end
local at = now()
local since, version = text(tick(at, 1)), text(found.version + 1)
redis.call('HSET', subscriptions_key(id), pattern, since)
redis.call('EXPIRE', subscriptions_key(id), ttl)
redis.call('HSET', session_key(id), 'version', version, 'count', text(found.count + 1))
local members = root .. 'subscribers:' .. pattern
redis.call('SADD', members, id)
redis.call('EXPIRE', members, ttl)
-- The first subscriber: from now on the pattern has a log.
redis.call('SET', root .. 'head:' .. pattern, since, 'EX', ttl, 'NX')
redis.call('EXPIRE', root .. 'head:' .. pattern, ttl)
redis.call('EXPIRE', root .. 'log:' .. pattern, ttl)
redis.call('ZADD', root .. 'logs', 'NX', text(at), pattern)
redis.call('EXPIRE', root .. 'logs', ttl)
tell(found.node, 'resubscribed ' .. id .. ' ' .. version)
return { 'added', since }
