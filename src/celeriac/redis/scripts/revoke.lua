#!lua
--@include _common.lua
-- Add to what is not to run any more.
-- KEYS: members by number, members by when they expire (server ms).
-- ARGV: ms they are kept, ms that must be left for one that is there to stay as it is, then for each: the member, how
-- many others cannot stand beside it, and these.
-- Numbers are microseconds since the epoch, or one more than the last: a server that lost its data goes on above.
local order, ends = KEYS[1], KEYS[2]
local kept, enough = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
-- unpack is bounded; the rest goes with the next calls
local gone = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, CHUNK)
if #gone > 0 then
  redis.call('ZREM', order, unpack(gone))
  redis.call('ZREM', ends, unpack(gone))
end
local newest = redis.call('ZRANGE', order, -1, -1, 'WITHSCORES')
local number = math.max(tonumber(newest[2] or 0), now * 1000 - 1)
local index = 3
while index <= #ARGV do
  local member, others = ARGV[index], tonumber(ARGV[index + 1])
  if others > 0 then
    redis.call('ZREM', order, unpack(ARGV, index + 2, index + 1 + others))
    redis.call('ZREM', ends, unpack(ARGV, index + 2, index + 1 + others))
  end
  index = index + 2 + others
  local there = redis.call('ZSCORE', ends, member)
  if not there or tonumber(there) < now + enough then
    number = number + 1
    redis.call('ZADD', order, string.format('%.0f', number), member)
    redis.call('ZADD', ends, string.format('%.0f', now + kept), member)
  end
end
local longest = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
if longest then
  local left = string.format('%.0f', math.max(tonumber(longest) - now, 1))
  redis.call('PEXPIRE', order, left)
  redis.call('PEXPIRE', ends, left)
end
return 1
