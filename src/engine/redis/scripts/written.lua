-- Notes that a repeated reply was written completely.
-- ARGV   3 session, 4 epoch
-- gives  done
-- cost   constant
local found = session(ARGV[3], { 'epoch', 'pending_upto' })
if found and found.epoch == ARGV[4] and found.pending_upto ~= '' then
  redis.call('HINCRBY', session_key(ARGV[3]), 'pending_writes', 1)
end
return 'done'
