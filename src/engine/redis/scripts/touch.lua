-- Extends a session's life.
-- ARGV   3 session, 4 epoch to be checked or ''
-- gives  alive | stale | unknown
-- cost   a step for each subscription
although_memory_is_short()
local found = session(ARGV[3], { 'life', 'extend_at', 'epoch', 'count' })
if not found or not intact(ARGV[3], found.count) then return 'unknown' end
heard_of(ARGV[3], now(), tonumber(found.life), tonumber(found.extend_at))
if ARGV[4] ~= '' and ARGV[4] ~= found.epoch then return 'stale' end
return 'alive'
