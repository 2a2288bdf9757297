#!lua flags=no-writes
--@include _common.lua
-- What was added since a number. KEYS: as revoke.lua. ARGV: the number, how many at most.
-- Answers: where to go on, whether there is more, then each member and the ms that are left to it.
local order, ends = KEYS[1], KEYS[2]
local since, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local newest = redis.call('ZRANGE', order, -1, -1, 'WITHSCORES')
local last = tonumber(newest[2] or 0)
-- another server's numbers, or the newest has expired
if since > last then since = 0 end
local answer = { string.format('%.0f', last), 0 }
if since == last then return answer end
local now = now_ms()
local found = redis.call('ZRANGEBYSCORE', order, string.format('(%.0f', since), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
for index = 1, #found, 2 do
  local expires = redis.call('ZSCORE', ends, found[index])
  if expires and tonumber(expires) > now then
    answer[#answer + 1] = found[index]
    answer[#answer + 1] = string.format('%.0f', tonumber(expires) - now)
  end
end
if #found == 2 * limit then
  answer[1] = string.format('%.0f', tonumber(found[#found]))
  answer[2] = 1
end
return answer
