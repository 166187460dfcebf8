-- Ends a poll whose reply certainly did not reach the client: what it recorded is due again, and a record of it that comes
-- even later, on a connection that was given up, is stale.
-- ARGV   3 session, 4 epoch, 5 connect id or ''
-- gives  done
-- cost   constant
local found = session(ARGV[3], { 'epoch', 'attached_by', 'pending_id', 'pending_upto' })
if found and found.epoch == ARGV[4] and found.attached_by == ARGV[5] then
  local recorded = found.pending_id == ARGV[5] and '' or found.pending_upto
  redis.call('HSET', session_key(ARGV[3]), 'pending_upto', recorded, 'epoch', text(found.epoch + 1), 'node', '')
end
return 'done'
