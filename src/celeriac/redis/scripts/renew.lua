#!lua flags=allow-oom
--@include _common.lua
-- Prolong leases. KEYS: lease. ARGV: lease ms, fields. Answers the fields that are lost.
local ends = now_ms() + ARGV[1]
local pairs_ = {}
for number = 2, #ARGV do
  pairs_[2 * number - 3], pairs_[2 * number - 2] = ends, ARGV[number]
end
local lost = {}
local changed = 0
for first = 1, #pairs_, CHUNK do
  changed = changed + redis.call('ZADD', KEYS[1], 'XX', 'CH', unpack(pairs_, first, math.min(first + CHUNK - 1, #pairs_)))
end
if changed < #ARGV - 1 then
  for number = 2, #ARGV do
    if not redis.call('ZSCORE', KEYS[1], ARGV[number]) then lost[#lost + 1] = ARGV[number] end
  end
end
return lost
