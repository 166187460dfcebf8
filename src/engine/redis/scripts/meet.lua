-- Run on every new connection before anything else: is this the Redis that the node knows? If it is behind what the node
-- has seen, acknowledged writes are lost: a new era begins, once for each start of Redis, and the clock is raised, so
-- that no position repeats or falls below a cursor.
-- ARGV   3 highest position that the node has seen, 4 run id of Redis
-- gives  {era, lost: 1 | ''}
-- cost   constant
local seen, meta, lost = tonumber(ARGV[3]), root .. 'meta', ''
if seen > clock() then
  if redis.call('HGET', meta, 'lost_by') ~= ARGV[4] then
    redis.call('INCR', root .. 'era')
    redis.call('EXPIRE', root .. 'era', ttl)
    redis.call('HSET', meta, 'lost_by', ARGV[4])
    redis.call('EXPIRE', meta, ttl)
    lost = '1'
  end
  redis.call('SET', root .. 'clock', text(seen), 'EX', ttl)
end
return { era(), lost }
