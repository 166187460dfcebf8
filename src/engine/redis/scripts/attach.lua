-- Attaches a session to a node: settles what its last delivery confirmed, raises the epoch, extends its life, and tells
-- the node that held it before.
-- ARGV   3 session, 4 node, 5 link: poll | socket | stream | local, 6 connect id or '', 7 retry: 1 | '',
--        8 epoch and 9 position of a stream's last event, or '', 10 what the client says that it has: '' | ack | position,
--        11 up to where, 12 messages and 13 bytes that are given at the most
-- gives  unknown | late | closed
--        | attached, epoch, version, start, ceiling or '', ceiling of replays, first: 1 | '', clock, traits,
--          "pattern since ...", "head ...", for each subscription whether its log has no other subscriber: 1 | 0, all that is
--          to be read, as "position length message" each, or '-' for what is to be read apart: with tabs between them
-- cost   a step for each subscription, and for each message given or found to be too large
local REMEMBERED_IDS = 8        -- connect ids that are remembered, to know late copies of old connects
local REMEMBERED_FOR = 60000    -- for how long
local WRITES_THAT_CONFIRM = 3   -- complete writes after which a repeated reply counts as received
local CROSSING = 2000           -- after a stream opened, a poll may still come that was sent before
local SLOTS = -- as many; their names are not put together each time
  { [0] = 'recent0', 'recent1', 'recent2', 'recent3', 'recent4', 'recent5', 'recent6', 'recent7' }
local ALONE = 16                -- subscriptions of a session beyond which nobody asks who else there is
local UNREAD, UNREAD_BYTES = tonumber(ARGV[12]), tonumber(ARGV[13]) -- what is given of the logs, at the most
local FIGHT, FIGHT_WINDOW = 3, 10000 -- streams that take a session from each other so often are two tabs

local id, node, link, connect_id, retry = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7] == '1'
local key = session_key(id)
local old = {}
do
  local flat = redis.call('HGETALL', key)
  for index = 1, #flat, 2 do old[flat[index]] = flat[index + 1] end
end
if old.era ~= era() then return 'unknown' end

-- Fields as they are now; what is put, and differs, is written in one step at the end.
local fields = setmetatable({}, { __index = setmetatable(old, { __index = function() return '' end }) })
local function number(name) return tonumber(fields[name]) end
local function write(extra)
  for name, value in pairs(extra) do fields[name] = value end
  local changes = {}
  for name, value in pairs(fields) do
    if value ~= old[name] then
      changes[#changes + 1] = name
      changes[#changes + 1] = value
    end
  end
  if #changes > 0 then redis.call('HSET', key, unpack(changes)) end
end

local at, top = now(), clock()
local cursor, pending = number('cursor'), number('pending_upto')
heard_of(id, at, number('life'), number('extend_at'))

local function repeats()
  if not pending or (number('pending_writes') or 0) >= WRITES_THAT_CONFIRM then return false end
  return (connect_id ~= '' and fields.pending_id == connect_id) or (retry and fields.attached == '1')
end

local function confirm_pending()
  if pending then cursor = math.max(cursor, pending) end
  if pending then replayed(id, fields.pending_replays) end
  pending = nil
  fields.cursor, fields.pending_upto = text(cursor), ''
end

-- The newest ids stand in a ring of fields, `SLOTS`, each as "<when> <id>".
local function slot(count) return SLOTS[count % REMEMBERED_IDS] end
-- Where this one stands there, and since when.
local known, seen
if connect_id ~= '' then
  local ending = ' ' .. connect_id
  for count = 0, REMEMBERED_IDS - 1 do
    local entry = old[SLOTS[count]]
    -- The first space stands behind the time.
    local space = string.find(entry, ending, 1, true)
    if space and space == #entry - #connect_id and space == string.find(entry, ' ', 1, true) then
      known, seen = count, tonumber(string.sub(entry, 1, space - 1))
      break
    end
  end
end
-- The last connect was taken for a late copy, and was a retry by its client's word. So it may have been no copy, but a
-- client that started its ids again (a page that was loaded again): this one confirms nothing.
local function follows_late_retry()
  local follows = fields.late_retry == '1'
  fields.late_retry = ''
  return follows
end

local function is_newest() return known and known == ((number('recent_count') or 0) - 1) % REMEMBERED_IDS end

-- An id that belongs to a connect that is over: an older one than the newest, or the newest itself once it was answered
-- empty. Never twice in a row: a client that starts its ids again must get on.
local function is_late()
  if not known or fields.late_before == '1' then return false end
  return at - seen < REMEMBERED_FOR and (not is_newest() or fields.concluded == '1')
end

local function remember()
  fields.concluded = ''
  if connect_id == '' then return end
  local count = number('recent_count') or 0
  if is_newest() then
    count = count - 1
  elseif known then
    -- An older one that is accepted again moves to the end; the others close up.
    local others = {}
    for other = count, count + REMEMBERED_IDS - 1 do
      local entry = fields[slot(other)]
      if entry ~= '' and other % REMEMBERED_IDS ~= known then others[#others + 1] = entry end
    end
    for index = 1, REMEMBERED_IDS do fields[slot(index - 1)] = others[index] or '' end
    count = #others
  end
  fields[slot(count)] = text(at) .. ' ' .. connect_id
  fields.recent_count = text(count + 1)
end

local start, ceiling

-- The client's word counts if its session asked for that when it was made.
local claim = ARGV[10]
local trait = ({ ack = 'a', position = 'r' })[claim]
if trait and not string.find(fields.traits, trait) then claim = '' end

-- The client says itself what it has; of replays, which it does not speak about, another id speaks.
local function settle_claim()
  local again, upto = repeats(), math.min(tonumber(ARGV[11]), top)
  cursor = claim == 'ack' and math.max(cursor, upto) or upto
  fields.cursor = text(cursor)
  if pending and again and fields.pending_replays ~= '' then
    fields.pending_id, ceiling = connect_id, pending
  else
    if pending and not again then replayed(id, fields.pending_replays) end
    fields.pending_upto = ''
  end
end

if link == 'poll' then
  local late = is_late()
  fields.late_before = late and '1' or ''
  if late then
    write({ late_retry = retry and '1' or '' })
    return 'late'
  end
  retry = follows_late_retry() or retry
  -- A poll that was sent before its client knew that the stream is open must not take the session from the stream.
  local opened = number('stream_opened')
  fields.stream_opened = ''
  if opened and at - opened < CROSSING and fields.stream == '1' and fields.node ~= '' and connect_id ~= ''
    and not repeats() then
    remember()
    write({ concluded = '1' })
    return 'late'
  end
  local again = repeats()
  remember()
  if claim ~= '' then
    settle_claim()
  elseif again then
    if fields.pending_id ~= connect_id then
      -- A client that changes its ids has no constant one.
      fields.pending_id, fields.pending_writes = connect_id, '0'
    end
    ceiling = pending
  else
    confirm_pending()
  end
  start = cursor
elseif link == 'socket' then
  fields.late_before = ''
  retry = follows_late_retry() or retry
  if claim ~= '' then
    settle_claim()
    ceiling = nil
  elseif not repeats() then
    confirm_pending()
  end
  -- A repetition clears the record: the socket's own pongs confirm from here.
  fields.pending_upto = ''
  remember()
  start = cursor
elseif link == 'stream' then
  local last_epoch, last = tonumber(ARGV[8]), math.min(tonumber(ARGV[9]) or 0, top)
  if last_epoch then
    -- A browser whose last answer was lost comes with an old epoch too: only where streams fight over the session, the
    -- loser stays closed.
    local since = number('fight_since')
    local fought_over = since and at - since < FIGHT_WINDOW and (number('fight_count') or 0) >= FIGHT
    if fought_over and last_epoch < number('epoch') then return 'closed' end
  end
  if string.find(fields.traits, 'r') then
    -- The client remembers its position: that must not pass anything that may not have arrived.
    start = cursor
  elseif pending then
    -- What a poll's reply carries lies below the events of the stream, and may not have arrived.
    start = math.max(pending, cursor, last)
  else
    cursor = math.max(cursor, last)
    fields.cursor = text(cursor)
    start = cursor
  end
else
  confirm_pending()
  start = cursor
end

-- The session changes hands.
local before, first = fields.node, fields.attached ~= '1'
local epoch = text(number('epoch') + 1)
if link == 'stream' and fields.stream == '1' and before ~= '' then
  local since = number('fight_since')
  if since and at - since < FIGHT_WINDOW then
    fields.fight_count = text(number('fight_count') + 1)
  else
    fields.fight_since, fields.fight_count = text(at), '1'
  end
end
if before ~= node then tell(before, 'superseded ' .. id .. ' ' .. epoch .. ' ' .. connect_id) end
write({
  epoch = epoch,
  node = node,
  attached = '1',
  attached_by = connect_id,
  stream = link == 'stream' and '1' or '',
  stream_opened = link == 'stream' and text(at) or '',
  heartbeat_after = '',
  flushed = '',
  flushed_before = '',
  flushed_replays = '',
  flushed_replays_before = '',
})

local subscribed = subscriptions(id, fields.count)
if not subscribed then return 'unknown' end
if link == 'stream' and pending and not string.find(fields.traits, 'r') then
  -- Replays go on behind what a poll's reply may just be carrying, as live messages do.
  local carried = {}
  for since, position, pattern in string.gmatch(fields.pending_replays, '(%d+) (%d+) ([^\n]+)') do
    carried[pattern] = { since, position }
  end
  for index = 1, #subscribed, 2 do
    local moved = carried[subscribed[index]]
    local since, from = string.match(subscribed[index + 1], '^(%d+):(%d+)')
    if moved and since == moved[1] and tonumber(moved[2]) > tonumber(from) then
      subscribed[index + 1] = tonumber(moved[2]) < tonumber(since) and since .. ':' .. moved[2] or since
    end
  end
end
local heads, patterns = {}, #subscribed / 2
spent = spent + patterns
for begin = 1, patterns, 1000 do
  local keys = {}
  for index = begin, math.min(begin + 999, patterns) do
    keys[#keys + 1] = root .. 'head:' .. subscribed[2 * index - 1]
  end
  for _, head in ipairs(redis.call('MGET', unpack(keys))) do heads[#heads + 1] = head or '' end
end
-- What the logs hold past the start, if it is little and nothing is missing: it spares the node a read.
local function unread()
  if ceiling then return '-' end
  local given, bytes, fits = {}, 0, true
  for index = 1, patterns do
    local since, head = tonumber(subscribed[2 * index]), tonumber(heads[index])
    -- A replay comes first, or Redis lost the log: that is not for here.
    if not since or not head then return '-' end
    local last, step = math.max(start, since), 1
    -- Little by little: nobody knows how large they are.
    while head > last do
      local entries = redis.call('XRANGE', root .. 'log:' .. subscribed[2 * index - 1], '(' .. text(last) .. '-0', '+',
        'COUNT', step)
      if #entries == 0 then return '-' end
      for _, entry in ipairs(entries) do
        local position, message = string.match(entry[1], '^%d+'), entry[2][4]
        spent, bytes = spent + 1 + #message / 1024, bytes + #message
        -- Each names the one before it: if that was not seen, it is missing.
        fits = fits and #given < UNREAD and bytes <= UNREAD_BYTES and tonumber(entry[2][2]) <= last
        given[#given + 1], last = fits and position .. ' ' .. #message .. ' ' .. message, tonumber(position)
      end
      if not fits then return '-' end
      step = math.min(2 * step, 4)
    end
  end
  return table.concat(given)
end

-- Of these logs the publisher tells only the node of the only subscriber, which need not listen to them (`publish.lua`).
local function alone()
  if patterns > ALONE then return '' end
  local flags = {}
  for index = 1, patterns do
    flags[index] = redis.call('SCARD', root .. 'subscribers:' .. subscribed[2 * index - 1]) == 1 and '1' or '0'
  end
  return table.concat(flags)
end

local waiting = unread()
return table.concat({ 'attached', epoch, fields.version, text(start), ceiling and text(ceiling) or '',
  ceiling and fields.pending_replays or '', first and '1' or '', text(top), fields.traits,
  table.concat(subscribed, ' '), table.concat(heads, ' '), waiting == '-' and '' or alone(), waiting }, '\t')
