#!lua flags=allow-oom
--@include _common.lua
--@include _give_back.lua
-- A consumer goes, or a claim of it is given up: what it holds goes back, but for the fields it keeps.
-- KEYS: owners, held, lease, fence, settled, served of each queue. ARGV: prefix, separator, owner, kept fields. Answers how many are still held.
local kept = {}
for number = 4, #ARGV do kept[ARGV[number]] = true end
local back = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  if not kept[field] then back[#back + 1] = field end
end
give_back(ARGV[1], ARGV[2], ARGV[3], back, false, false)
for number = 6, #KEYS do redis.call('ZREM', KEYS[number], ARGV[3]) end
local left = redis.call('HLEN', KEYS[2])
if left == 0 then
  redis.call('ZREM', KEYS[1], ARGV[3])
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[5])
end
return left
