-- Concludes a poll that delivers nothing: from now on copies of its connect are late. Only after `empty` may the empty
-- reply be sent.
-- ARGV   3 session, 4 epoch, 5 connect id or '', 6 vain: 1 | '' (it repeats a reply of which nothing is left)
-- gives  empty | hangup | unknown
-- cost   constant
local id, connect_id = ARGV[3], ARGV[5]
local found = session(id, { 'epoch', 'pending_id', 'pending_upto', 'attached_by' })
if not found then return 'unknown' end
if found.epoch ~= ARGV[4] then return answered_elsewhere(found, connect_id) and 'hangup' or 'empty' end
local recorded = found.pending_upto ~= '' and found.pending_id == connect_id
local empty = ARGV[6] == '1' or connect_id == '' or not recorded
redis.call('HSET', session_key(id), 'concluded', empty and '1' or '', 'node', '')
return empty and 'empty' or 'hangup'
