-- Reads logs as one snapshot, in order of position, each message once.
-- ARGV   3 session, 4 epoch, 5 version, 6 messages and 7 bytes at the most (but at least one message); then for each
--        log: pattern, position after which to read
-- gives  {snapshot, position up to which nothing is missing, truncated: 1 | '', {position, message, ...}, position up to
--        which messages are lost or ''} | {gap, {pattern, ...}}: the session was ended | {outdated} | {stale} | {unknown}
-- cost   a step for each log that holds more and an entry of each, however large; and as many entries again as may be given four
--        times
local id, max_messages, max_bytes = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
local found = session(id, { 'epoch', 'version', 'traits' })
if not found then return { 'unknown' } end
if found.epoch ~= ARGV[4] then return { 'stale' } end
if found.version ~= ARGV[5] then return { 'outdated' } end
-- A session that can be told of a gap is not ended by it.
local is_told = string.find(found.traits, 'r') ~= nil

-- The logs that hold more than was read of them, as a heap: the least far read one first.
local behind, lost = {}, {}
local function sink(place)
  local log, count = behind[place], #behind
  while 2 * place <= count do
    local child = 2 * place
    if child < count and behind[child + 1].last < behind[child].last then child = child + 1 end
    if behind[child].last >= log.last then break end
    behind[place], place = behind[child], child
  end
  behind[place] = log
end

for begin = 8, #ARGV, 2000 do
  local keys = {}
  for index = begin, math.min(begin + 1998, #ARGV), 2 do keys[#keys + 1] = root .. 'head:' .. ARGV[index] end
  for offset, head in ipairs(redis.call('MGET', unpack(keys))) do
    local pattern, from = ARGV[begin + 2 * offset - 2], ARGV[begin + 2 * offset - 1]
    if not head then
      -- The log of a retained channel has all the same; any other begins anew, and what was in it is not known.
      local last = retained(pattern) and redis.call('XREVRANGE', root .. 'log:' .. pattern, '+', '-', 'COUNT', 1)[1]
      if not last and not is_told then return { 'gap', finish(id, 'gap') or {} } end
      although_memory_is_short()
      enter(pattern, id, now(), text(clock()))
      head = last and string.match(last[1], '^%d+')
      if not last then lost.log = clock() end
    end
    if head and tonumber(head) > tonumber(from) then
      behind[#behind + 1] = { log = root .. 'log:' .. pattern, head = tonumber(head), last = tonumber(from) }
    end
  end
end
for place = math.floor(#behind / 2), 1, -1 do sink(place) end
local logs = #behind

local entries, known, held, first = {}, {}, 0, math.huge
-- What lies past it is not given, and found again by the next read.
local cut = math.huge
-- Few at first, as nobody knows how large they are.
local least, looked, looked_bytes = logs > 4 and 1 or 4, 0, 0

-- Reads on in a log; notes what is missing there. Each entry names the one before it.
local function advance(log)
  local step, bytes = log.step or least, 0
  local chunk = redis.call('XRANGE', log.log, '(' .. text(log.last) .. '-0', '+', 'COUNT', step)
  for _, entry in ipairs(chunk) do
    local position, before, message = string.match(entry[1], '^%d+'), tonumber(entry[2][2]), entry[2][4]
    if before > log.last then lost[#lost + 1] = { past = log.last, upto = before } end
    log.last, bytes = tonumber(position), bytes + #message
    if not known[position] then
      known[position] = true
      entries[#entries + 1] = { log.last, position, message }
      held, first = held + #message, math.min(first, log.last)
    end
  end
  looked, looked_bytes = looked + #chunk, looked_bytes + bytes
  if #chunk < step then
    if log.last < log.head then lost[#lost + 1] = { past = log.last, upto = log.head } end
    log.last = math.huge
  else
    -- More at a time, if by the size of these that is no large part of what may be given.
    log.step = math.max(1, math.min(16, 2 * step, math.ceil(max_bytes / 4 / (bytes / step))))
  end
  return log.last < log.head
end

-- Keeps no more than can be given.
local function prune()
  table.sort(entries, function(one, other) return one[1] < other[1] end)
  local count, bytes = 0, 0
  for index, entry in ipairs(entries) do
    bytes = bytes + #entry[3]
    if entry[1] > cut or index > max_messages or (index > 1 and bytes > max_bytes) then break end
    count, held = index, bytes
  end
  if count < #entries then cut = math.min(cut, entries[count][1]) end
  for index = #entries, count + 1, -1 do entries[index] = nil end
end

-- Goes on where the least was read, until there is enough up to there.
local room, goes_on = 1, logs > 0
while goes_on do
  if not advance(behind[1]) then
    behind[1] = behind[#behind]
    behind[#behind] = nil
  end
  if #behind > 0 then sink(1) end
  if #entries > room * max_messages or held > room * max_bytes then
    prune()
    -- Not for each that follows.
    room = 2
  end
  local next = behind[1]
  local tired = looked > logs + 4 * max_messages or looked_bytes > 4 * max_bytes
  goes_on = next and next.last < cut and not (tired and first <= next.last)
end
if #behind > 0 then cut = math.min(cut, behind[1].last) end
prune()

local truncated = cut < math.huge
local flat, upto = {}, truncated and entries[#entries][1] or clock()
for _, entry in ipairs(entries) do flat[#flat + 1], flat[#flat + 2] = entry[2], entry[3] end
-- What is missing past the end is found again from there.
local gap = lost.log
for _, hole in ipairs(lost) do
  if hole.past < upto then gap = math.max(gap or 0, hole.upto) end
end
if gap and not is_told then return { 'gap', finish(id, 'gap') or {} } end
return { 'snapshot', text(upto), truncated and '1' or '', flat, gap and text(gap) or '' }
