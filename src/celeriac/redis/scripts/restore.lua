#!lua flags=allow-oom
--@include _common.lua
-- Give back what Celery's workers took and did not settle, one message at a time, the newest first.
-- KEYS: unacked, unacked_index; per message its list, wake. ARGV: the latest time it may have been taken (s); per
-- message its tag, its bytes. Answers how many were given back: those that are still there and as old as that.
local restored = 0
for number = 0, (#ARGV - 1) / 2 - 1 do
  local tag, payload = ARGV[2 + 2 * number], ARGV[3 + 2 * number]
  local taken = redis.call('ZSCORE', KEYS[2], tag)
  if redis.call('HEXISTS', KEYS[1], tag) == 1 and (not taken or tonumber(taken) <= tonumber(ARGV[1])) then
    redis.call('RPUSH', KEYS[3 + 2 * number], payload)
    redis.call('HDEL', KEYS[1], tag)
    redis.call('ZREM', KEYS[2], tag)
    wake(KEYS[4 + 2 * number])
    restored = restored + 1
  end
end
return restored
