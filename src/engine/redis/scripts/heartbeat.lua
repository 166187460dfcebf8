-- A stream's heartbeat: extends the session's life, and confirms what was written one heartbeat ago: that has had time
-- to arrive, or to fail visibly.
-- ARGV   3 session
-- gives  alive | unknown
-- cost   as touch
local id = ARGV[3]
although_memory_is_short()
local found = session(id, { 'count', 'life', 'touched', 'stream', 'node', 'heartbeat_after', 'flushed', 'flushed_before', 'cursor',
  'pending_upto' })
if not found or not intact(id, found.count) then return 'unknown' end
local at, life = now(), tonumber(found.life)
heard_of(id, at, life, tonumber(found.touched))
local due = tonumber(found.heartbeat_after)
if found.stream == '' or found.node == '' or (due and at < due) then return 'alive' end
local changes = { 'heartbeat_after', text(at + life / 4) }
local before = tonumber(found.flushed_before)
if before then
  local cursor, pending = math.max(tonumber(found.cursor), before), tonumber(found.pending_upto)
  changes[3], changes[4] = 'cursor', text(cursor)
  if pending and pending <= cursor then changes[5], changes[6] = 'pending_upto', '' end
end
if found.flushed ~= '' then
  redis.call('HSET', session_key(id), 'flushed_before', found.flushed, 'flushed', '')
end
redis.call('HSET', session_key(id), unpack(changes))
return 'alive'
