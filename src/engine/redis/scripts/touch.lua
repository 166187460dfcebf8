-- Extends a session's life.
-- ARGV   3 session, 4 epoch to be checked or ''
-- gives  alive | stale | unknown
-- cost   constant; every third of the keys' time to live, one step for each subscription
local found = session(ARGV[3], { 'life', 'touched', 'epoch' })
if not found then return 'unknown' end
heard_of(ARGV[3], now(), tonumber(found.life), tonumber(found.touched))
if ARGV[4] ~= '' and ARGV[4] ~= found.epoch then return 'stale' end
return 'alive'
