#!lua flags=allow-oom
--@include _common.lua
-- The answer to a claim was lost on its way: what stands under its number, or a later one, is handed out again.
-- KEYS: held, lease, fence. ARGV: the first claim that is not known, the last one made, lease ms.
-- Answers: field, bytes, field, bytes …
-- should it still be on its way, it finds the door shut
redis.call('SET', KEYS[3], ARGV[2], 'PX', 3600000)
local found = {}
local lease_ends = now_ms() + ARGV[3]
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local claim = tonumber(string.match(field, '^(%d+)%.'))
  if claim and claim >= tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[2], lease_ends, field)
    found[#found + 1] = field
    found[#found + 1] = redis.call('HGET', KEYS[1], field)
  end
end
return found
