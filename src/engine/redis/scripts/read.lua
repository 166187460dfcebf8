-- Reads logs as one snapshot, in order of position, each message once.
-- ARGV   3 session, 4 epoch, 5 version, 6 messages and 7 bytes at the most (but at least one message); then for each
--        log: pattern, position after which to read
-- gives  {snapshot, position up to which nothing is missing, truncated: 1 | '', {position, message, ...}, gap: 1 | ''}
--        | {gap, {pattern, ...}}: the session was ended | {outdated} | {stale} | {unknown}
-- cost   a step for each log, and for each entry that is given
local id, max_messages, max_bytes = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
local found = session(id, { 'epoch', 'version', 'traits' })
if not found then return { 'unknown' } end
if found.epoch ~= ARGV[4] then return { 'stale' } end
if found.version ~= ARGV[5] then return { 'outdated' } end

local entries, known, held = {}, {}, 0
-- A session that can be told of a gap is not ended by it.
local is_told, gap = string.find(found.traits, 'r') ~= nil, false
-- What lies past it was left in some log.
local cut = math.huge
-- Of each log: so much of many logs that it is enough for all, and a bound for what is looked at in vain.
local logs = (#ARGV - 7) / 2
local most, most_bytes = math.ceil(4 * max_messages / logs), math.ceil(4 * max_bytes / logs)
most, most_bytes = math.max(4, math.min(max_messages, most)), math.min(max_bytes, most_bytes)

-- Keeps no more than can be given, however many logs there are; later logs are read up to what was kept.
local function prune()
  table.sort(entries, function(one, other) return one[1] < other[1] end)
  local count, bytes = 0, 0
  for index, entry in ipairs(entries) do
    bytes = bytes + #entry[3]
    if index > max_messages or (index > 1 and bytes > max_bytes) then break end
    count, held = index, bytes
  end
  if count == #entries then return end
  cut = math.min(cut, entries[count][1])
  for index = #entries, count + 1, -1 do entries[index] = nil end
end

-- Takes what one log holds past `from`; notes when it no longer reaches back so far.
local function take(pattern, from)
  local head = tonumber(redis.call('GET', root .. 'head:' .. pattern) or nil)
  if not head then
    gap = true
    -- Redis lost it: it begins anew, so that this is told once.
    if is_told then
      although_memory_is_short()
      enter(pattern, id, now(), text(clock()))
    end
    return
  end
  if head <= tonumber(from) then return end
  local log, last, messages, bytes, step = root .. 'log:' .. pattern, from, 0, 0, logs > 4 and 1 or 4
  local top = '+'
  if cut < math.huge then
    -- What lies past the cut is not given now, and must not be passed over unseen when it is: its predecessor tells.
    top = text(cut) .. '-0'
    local first = redis.call('XRANGE', log, '(' .. from .. '-0', '+', 'COUNT', 1)[1]
    if not first or tonumber(first[2][2]) > tonumber(from) then gap = true end
  end
  repeat
    local chunk = redis.call('XRANGE', log, '(' .. last .. '-0', top, 'COUNT', step)
    for _, entry in ipairs(chunk) do
      local position, message = string.match(entry[1], '^%d+'), entry[2][4]
      -- Each names the one before it.
      if tonumber(entry[2][2]) > tonumber(last) then gap = true end
      messages, bytes, last = messages + 1, bytes + #message, position
      if not known[position] then
        known[position] = true
        entries[#entries + 1] = { tonumber(position), position, message }
        held = held + #message
      end
    end
    -- Of a log that is read in part, a later read tells whether it reaches back.
    if #chunk < step then
      gap = gap or (top == '+' and tonumber(last) < head)
      return
    end
    -- As many as may still fit, by the size of those before; few, as large ones may follow small ones.
    local fit = math.ceil((most_bytes - bytes) / (bytes / messages))
    step = math.max(1, math.min(16, fit, most - messages + 1))
  until messages > most or bytes > most_bytes
  if tonumber(last) < head then cut = math.min(cut, tonumber(last)) end
end

for index = 8, #ARGV, 2 do
  take(ARGV[index], ARGV[index + 1])
  if gap and not is_told then return { 'gap', finish(id, 'gap') or {} } end
  if #entries > 2 * max_messages or held > 2 * max_bytes then prune() end
end

prune()
local flat, upto, truncated = {}, nil, cut < math.huge
for _, entry in ipairs(entries) do
  if entry[1] > cut then break end
  flat[#flat + 1], flat[#flat + 2], upto = entry[2], entry[3], entry[2]
end
return { 'snapshot', truncated and upto or text(clock()), truncated and '1' or '', flat, gap and '1' or '' }
