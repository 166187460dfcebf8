-- Ends a session.
-- ARGV   3 session, 4 why: disconnected | expired | gap | inactive
-- gives  its patterns, or nil when there was none
-- cost   a step for each subscription
although_memory_is_short()
return finish(ARGV[3], ARGV[4])
