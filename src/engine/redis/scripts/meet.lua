-- Run on every new connection before anything else: is this the Redis that the node knows? The first node that meets a
-- server notes its clock. A node that comes from another server, where it was acknowledged something past that, knows
-- that it is lost: a new era begins, once for each server. And the clock is raised past everything that was seen, so that
-- no position repeats or falls below a cursor. It always writes: a replica refuses it.
-- ARGV   3 server: run id and replication id, 4 highest position acknowledged by other servers (0 if the node comes from
--        this one), 5 highest position seen at all
-- gives  {era, lost: 1 | ''}
-- cost   constant
although_memory_is_short()
local meta, server, lost = root .. 'meta', ARGV[3], ''
if redis.call('HGET', meta, 'server') ~= server then
  redis.call('HSET', meta, 'server', server, 'floor', text(clock()))
end
redis.call('HSET', meta, 'met', text(now()))
redis.call('EXPIRE', meta, ttl)
if tonumber(ARGV[4]) > tonumber(redis.call('HGET', meta, 'floor')) and redis.call('HGET', meta, 'lost_by') ~= server then
  redis.call('INCR', root .. 'era')
  redis.call('EXPIRE', root .. 'era', ttl)
  redis.call('HSET', meta, 'lost_by', server)
  lost = '1'
end
if tonumber(ARGV[5]) > clock() then redis.call('SET', root .. 'clock', ARGV[5], 'EX', ttl) end
return { era(), lost }
