#!lua flags=allow-oom
--@include _common.lua
-- Take epitaphs out of their lists, and put messages back into their queues.
-- KEYS: per epitaph its list, the queue's list, wake. ARGV: per epitaph its text, "1" to put the message back, its
-- bytes. Answers how many were still there.
local found = 0
for number = 0, #ARGV / 3 - 1 do
  local grave, list, token = KEYS[3 * number + 1], KEYS[3 * number + 2], KEYS[3 * number + 3]
  local text, back, payload = ARGV[3 * number + 1], ARGV[3 * number + 2], ARGV[3 * number + 3]
  if redis.call('LPOS', grave, text) then
    if back == '1' then
      redis.call('LPUSH', list, payload)
      wake(token)
    end
    redis.call('LREM', grave, 1, text)
    found = found + 1
  end
end
return found
