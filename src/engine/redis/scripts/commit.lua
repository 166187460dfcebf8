-- Writes the progress of sockets and streams.
-- ARGV   from 3 on, for each: session, epoch, version, position, kind: confirmed | flushed, how
--        far replays have come, detach: 1 | ''
-- gives  for each: committed | outdated | stale | unknown
-- cost   constant for each
although_memory_is_short()
local top, outcomes = clock(), {}

local function commit(id, epoch, version, upto, kind, replays)
  local found = session(id, { 'epoch', 'version', 'cursor', 'pending_upto', 'pending_replays', 'flushed' })
  if not found then return 'unknown' end
  if found.epoch ~= epoch then return 'stale' end
  if found.version ~= version then return 'outdated' end
  upto = math.min(upto, top)
  if kind == 'flushed' then
    -- Each report of replays holds all before it.
    redis.call('HSET', session_key(id), 'flushed', text(math.max(tonumber(found.flushed) or 0, upto)),
      'flushed_replays', replays)
    return 'committed'
  end
  if upto > tonumber(found.cursor) then
    local pending = tonumber(found.pending_upto)
    -- What a poll carried below it needs no confirmation any more.
    local carried = pending and pending <= upto and found.pending_replays == ''
    redis.call('HSET', session_key(id), 'cursor', text(upto), 'pending_upto', carried and '' or found.pending_upto)
  end
  replayed(id, replays)
  return 'committed'
end

for index = 3, #ARGV, 7 do
  local id = ARGV[index]
  local outcome = commit(id, ARGV[index + 1], ARGV[index + 2], tonumber(ARGV[index + 3]), ARGV[index + 4],
    ARGV[index + 5])
  if ARGV[index + 6] == '1' and (outcome == 'committed' or outcome == 'outdated') then
    -- Nothing of the attachment can follow.
    redis.call('HINCRBY', session_key(id), 'epoch', 1)
    redis.call('HSET', session_key(id), 'node', '')
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
