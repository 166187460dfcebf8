-- Writes down what a poll's reply is about to carry. Only after `recorded` may the reply be sent. The poll ends with it, so
-- nobody holds the session then, and nobody has to be told of the next poll.
-- ARGV   3 session, 4 epoch, 5 version, 6 connect id or '', 7 last position that the reply carries,
--        8 how far it carries replays
-- gives  recorded | outdated | stale | stale_same_id | unknown
-- cost   constant
local id, connect_id = ARGV[3], ARGV[6]
local found = session(id, { 'epoch', 'version', 'pending_id', 'pending_upto', 'pending_writes', 'attached_by' })
if not found then return 'unknown' end
if found.epoch ~= ARGV[4] then return answered_elsewhere(found, connect_id) and 'stale_same_id' or 'stale' end
if found.version ~= ARGV[5] then return 'outdated' end
local same = found.pending_upto ~= '' and found.pending_id == connect_id
redis.call('HSET', session_key(id), 'pending_id', connect_id, 'pending_upto', ARGV[7], 'pending_replays', ARGV[8],
  'pending_writes', same and found.pending_writes or '0', 'node', '')
return 'recorded'
