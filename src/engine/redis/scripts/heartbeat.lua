-- A stream's heartbeat: extends the session's life, and confirms what was written one heartbeat ago: that has had time
-- to arrive, or to fail visibly. Of live messages a client that remembers its position speaks for itself.
-- ARGV   3 session, 4 position that the client claims, or ''
-- gives  alive | unknown
-- cost   as touch
local id, claim = ARGV[3], tonumber(ARGV[4])
although_memory_is_short()
local found = session(id, { 'count', 'life', 'extend_at', 'stream', 'node', 'heartbeat_after', 'flushed', 'flushed_before',
  'flushed_replays', 'flushed_replays_before', 'cursor', 'pending_upto', 'pending_replays', 'traits' })
if not found or not intact(id, found.count) then return 'unknown' end
local at, life = now(), tonumber(found.life)
heard_of(id, at, life, tonumber(found.extend_at))
local resumes = string.find(found.traits, 'r') ~= nil
local changes = {}
local function change(name, value)
  changes[#changes + 1], changes[#changes + 2] = name, value
end
local function confirm(upto)
  local cursor, pending = math.max(tonumber(found.cursor), upto), tonumber(found.pending_upto)
  change('cursor', text(cursor))
  if pending and pending <= cursor and found.pending_replays == '' then change('pending_upto', '') end
end

if resumes and claim then confirm(math.min(claim, clock())) end
local due = tonumber(found.heartbeat_after)
if found.stream ~= '' and found.node ~= '' and not (due and at < due) then
  change('heartbeat_after', text(at + life / 4))
  local before = tonumber(found.flushed_before)
  if before and not resumes then confirm(before) end
  replayed(id, found.flushed_replays_before)
  if found.flushed ~= '' then
    change('flushed_before', found.flushed)
    change('flushed_replays_before', found.flushed_replays)
    change('flushed', '')
  end
end
if #changes > 0 then redis.call('HSET', session_key(id), unpack(changes)) end
return 'alive'
