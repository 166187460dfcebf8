-- Forgets a record whose reply certainly did not reach the client: the same range is due again.
-- ARGV   3 session, 4 epoch, 5 connect id or ''
-- gives  done
-- cost   constant
local found = session(ARGV[3], { 'epoch', 'pending_id' })
if found and found.epoch == ARGV[4] and found.pending_id == ARGV[5] then
  redis.call('HSET', session_key(ARGV[3]), 'pending_upto', '')
end
return 'done'
