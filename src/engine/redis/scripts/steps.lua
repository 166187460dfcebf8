-- Does steps of sessions, one after the other. Those that one step stands for are functions `steps.<name>`.
-- ARGV   from 3 on, for each step: the number of its words; its name; its arguments, which it counts from 3 on
-- gives  for each: what it says, or ! and an error, or nothing if it was not done, because there was so much before it
-- cost   the sum of what the steps cost, of which the last one is begun when the others have spent less than MOST
local MOST = 500
-- Before the first step, and outside of what is caught: a server that takes no writes refuses the whole call here.
although_memory_is_short()
local said, word = {}, 3
while ARGV[word] do
  local words = tonumber(ARGV[word])
  local outcome = ''
  if spent < MOST then
    local fine, result = pcall(steps[ARGV[word + 1]], { ARGV[1], ARGV[2], unpack(ARGV, word + 2, word + words) })
    outcome = fine and result or '!' .. (type(result) == 'table' and result.err or tostring(result))
  end
  said[#said + 1] = outcome
  word = word + words + 1
end
return said
