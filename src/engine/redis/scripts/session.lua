-- Stands before every script about sessions: what several of them do.
-- A session is a hash `session:<id>`; an empty field is an absent one. Its subscriptions are a hash
-- `subscriptions:<id>` of pattern and position.

-- At its limit of memory Redis refuses what may need more, unless a script has written before. What keeps sessions alive
-- and ends them must go on: it is what frees memory.
local function although_memory_is_short()
  redis.call('EXPIRE', root .. 'meta', ttl)
end

-- What this call has looked at, in subscriptions; a message counts more, the larger it is. Calls that do several things end
-- by it.
local spent = 0

local function session_key(id) return root .. 'session:' .. id end
local function subscriptions_key(id) return root .. 'subscriptions:' .. id end

-- Counts the times at which Redis lost acknowledged writes. Sessions of an older era are no more.
local function era()
  return redis.call('GET', root .. 'era') or '0'
end

-- These fields of a session; nil when there is no such session.
local function session(id, names)
  local values = redis.call('HMGET', session_key(id), 'era', unpack(names))
  if values[1] ~= era() then return nil end
  local found = {}
  for index, name in ipairs(names) do found[name] = values[index + 1] or '' end
  return found
end

-- Tells a node about a session, on the connection that also brings it messages: what was before comes before.
local function tell(node, words)
  if node and node ~= '' then redis.call('PUBLISH', announce .. 'node:' .. node, words) end
end

-- For how many milliseconds a log is kept whatever its subscribers; nil if it is not.
local function retained(pattern)
  return tonumber(redis.call('HGET', root .. 'kept', pattern) or nil)
end

-- Seconds for which the keys of a log live.
local function lasting(pattern)
  return ttl + math.ceil((retained(pattern) or 0) / 1000 * 1.25)
end

-- Tells the node that holds a session.
local function tell_holder(id, word)
  local found = session(id, { 'node' })
  if found then tell(found.node, word .. ' ' .. id .. ' -') end
end

-- Adds to the subscribers of a log; gives whether the session was none of them. A node need not listen to the log of an only
-- subscriber (`publish.lua`), which ends here.
local function add_member(pattern, id)
  local members = root .. 'subscribers:' .. pattern
  if redis.call('SADD', members, id) == 0 then return false end
  if redis.call('SCARD', members) == 2 then
    for _, other in ipairs(redis.call('SMEMBERS', members)) do
      if other ~= id then tell_holder(other, 'company') end
    end
  end
  return true
end

-- A session is a subscriber from now on; the first one of a pattern makes its log, which begins at `since`. The log of a
-- retained channel goes on where it ends, should its head be lost: whatever was published since is in it.
local function enter(pattern, id, at, since)
  local life = lasting(pattern)
  add_member(pattern, id)
  extend(root .. 'subscribers:' .. pattern, ttl)
  if redis.call('EXISTS', root .. 'head:' .. pattern) == 0 then
    local last = retained(pattern) and redis.call('XREVRANGE', root .. 'log:' .. pattern, '+', '-', 'COUNT', 1)[1]
    redis.call('SET', root .. 'head:' .. pattern, last and string.match(last[1], '^%d+') or since)
  end
  extend(root .. 'head:' .. pattern, life)
  extend(root .. 'log:' .. pattern, life)
  redis.call('ZADD', root .. 'logs', 'NX', text(at), pattern)
  extend(root .. 'logs', ttl)
end

local function forget(pattern)
  redis.call('DEL', root .. 'head:' .. pattern, root .. 'lingers:' .. pattern)
  redis.call('UNLINK', root .. 'log:' .. pattern)
  redis.call('ZREM', root .. 'logs', pattern)
  redis.call('HDEL', root .. 'kept', pattern)
end

-- One subscriber less. The log goes with the last one, unless it is retained, or somebody may return for it.
local function leave(pattern, id, may_return)
  local members = root .. 'subscribers:' .. pattern
  redis.call('SREM', members, id)
  -- Half a key's life: as long as an entry's.
  if may_return then
    redis.call('SET', root .. 'lingers:' .. pattern, text(now() + ttl * 500), 'EX', ttl)
    extend(root .. 'head:' .. pattern, lasting(pattern))
    extend(root .. 'log:' .. pattern, lasting(pattern))
  end
  if redis.call('EXISTS', members) == 0 and not retained(pattern) and not lingers(pattern) then forget(pattern) end
end

-- Ends a session and tells its node; gives its patterns, or nil when there was none.
local function finish(id, why)
  local key = session_key(id)
  local node, traits = unpack(redis.call('HMGET', key, 'node', 'traits'))
  -- With another session, for what it has missed.
  local may_return = why ~= 'disconnected' and why ~= 'inactive' and string.find(traits or '', 'r') ~= nil
  local patterns = redis.call('HKEYS', subscriptions_key(id))
  redis.call('ZREM', root .. 'deadlines', id)
  redis.call('DEL', subscriptions_key(id))
  for _, pattern in ipairs(patterns) do leave(pattern, id, may_return) end
  spent = spent + #patterns
  if redis.call('DEL', key) == 0 and #patterns == 0 then return nil end
  tell(node, 'ended ' .. id .. ' ' .. why)
  return patterns
end

-- When keys that live for `ttl` from now on are to be extended: long before they are at their end.
local function extension(at) return text(at + math.floor(ttl * 1000 / 3)) end

-- Extends the life of a session that was heard of. Now and then also that of its keys, and of those that it needs and only
-- publishes refresh; an entry that Redis lost is put back. `due`: when, by the time to live that they were given.
local function heard_of(id, at, life, due)
  redis.call('ZADD', root .. 'deadlines', text(at + life), id)
  -- Later than it would be now: the clock was put back, or their life was longer.
  if due and at < due and due <= tonumber(extension(at)) then return end
  extend(session_key(id), ttl)
  extend(subscriptions_key(id), ttl)
  redis.call('HSET', session_key(id), 'extend_at', extension(at))
  local patterns, lost = redis.call('HKEYS', subscriptions_key(id)), false
  spent = spent + #patterns
  for _, pattern in ipairs(patterns) do
    lost = add_member(pattern, id) or lost
    redis.call('ZADD', root .. 'logs', 'NX', text(at), pattern)
    extend(root .. 'subscribers:' .. pattern, ttl)
    local life = lasting(pattern)
    extend(root .. 'head:' .. pattern, life)
    extend(root .. 'log:' .. pattern, life)
  end
  -- Redis had lost that it is a subscriber: messages may have passed by its node.
  if lost then tell_holder(id, 'doubtful') end
end

-- Whether Redis still has all that a session needs: its subscriptions, and the head of each log. A session that lost some
-- would wait in silence, so it is ended, and told.
local function intact(id, count)
  local heads = {}
  for index, pattern in ipairs(redis.call('HKEYS', subscriptions_key(id))) do
    heads[index] = root .. 'head:' .. pattern
  end
  local found = 0
  for begin = 1, #heads, 1000 do
    found = found + redis.call('EXISTS', unpack(heads, begin, math.min(begin + 999, #heads)))
  end
  if found == tonumber(count) then return true end
  finish(id, 'gap')
  return false
end

-- Notes how far replays were received: "since position pattern" lines. Of an older subscription to the channel a line says
-- nothing about this one.
local function replayed(id, lines)
  for of, position, pattern in string.gmatch(lines, '(%d+) (%d+) ([^\n]+)') do
    local value = redis.call('HGET', subscriptions_key(id), pattern) or ''
    local since, from, told = string.match(value, '^(%d+):(%d+)(.*)$')
    if since == of and tonumber(position) > tonumber(from) then
      local left = tonumber(position) < tonumber(since)
      redis.call('HSET', subscriptions_key(id), pattern, left and since .. ':' .. position .. told or since)
    end
  end
end

-- Pattern and start of each subscription ("since"; while a replay is due "since:from", and ":g" if its beginning was not
-- kept), flat; nil when Redis lost some of them: then the session was ended.
local function subscriptions(id, count)
  local flat = redis.call('HGETALL', subscriptions_key(id))
  if #flat ~= 2 * tonumber(count) then
    finish(id, 'gap')
    return nil
  end
  return flat
end

-- Whether a copy of this connect carries messages, or may still come to.
local function answered_elsewhere(found, connect_id)
  local recorded = found.pending_upto ~= '' and found.pending_id == connect_id
  return connect_id ~= '' and (recorded or found.attached_by == connect_id)
end
