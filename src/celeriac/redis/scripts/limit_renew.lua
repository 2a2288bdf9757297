#!lua flags=allow-oom
-- Permits are good for a lease from now. KEYS: counters. ARGV: lease µs, then number of the key and holder of each.
-- Answers the numbers of those that had lapsed, from 1.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lease = tonumber(ARGV[1])
local left = math.ceil(lease / 1000)
local lapsed = {}
for position = 2, #ARGV, 2 do
  local key, holder = KEYS[tonumber(ARGV[position])], ARGV[position + 1]
  local ends = redis.call('ZSCORE', key, holder)
  if not ends or tonumber(ends) <= now then lapsed[#lapsed + 1] = position / 2 end
  redis.call('ZADD', key, now + lease, holder)
  if redis.call('PTTL', key) < left then redis.call('PEXPIRE', key, left) end
end
return lapsed
