-- The session's subscriptions under an epoch.
-- ARGV   3 session, 4 epoch
-- gives  {current, version, {pattern, since, ...}} | {stale} | {unknown}
-- cost   a step for each subscription
local found = session(ARGV[3], { 'epoch', 'version', 'count' })
if not found then return { 'unknown' } end
if found.epoch ~= ARGV[4] then return { 'stale' } end
local subscribed = subscriptions(ARGV[3], found.count)
if not subscribed then return { 'unknown' } end
return { 'current', found.version, subscribed }
