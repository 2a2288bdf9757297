#!lua flags=allow-oom
--@include _common.lua
--@include _give_back.lua
-- What every consumer does every few seconds: report that it lives, and give back what others died with or did not
-- renew. KEYS: owners, served, amnesty, peek. ARGV: prefix, separator, dead ms, room, number of owners reporting, owners,
-- queues they serve. Answers how many messages were given back, and whether the first owner is the one that watches
-- the list for which peek stands.
local prefix, separator, dead_ms, room = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local owners = tonumber(ARGV[5])
local now = now_ms()

-- If those who report now seem dead and so does everybody else, it was the server that was away: it restarted, or a
-- replica took over. Then all get the time to come back.
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
for number = 6, 5 + owners do
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[number])
  if ends and tonumber(ends) < now and tonumber(newest) < now then
    redis.call('SET', KEYS[3], '1', 'PX', dead_ms)
  end
end
for number = 6, 5 + owners do redis.call('ZADD', KEYS[1], now + dead_ms, ARGV[number]) end
for number = 6 + owners, #ARGV do redis.call('ZADD', KEYS[2], now, ARGV[number]) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 3600000)
redis.call('PEXPIRE', KEYS[2], 3600000)
local looks = 0
local watcher = redis.call('GET', KEYS[4])
if not watcher or watcher == ARGV[6] then
  redis.call('SET', KEYS[4], ARGV[6], 'PX', dead_ms)
  looks = 1
end
if redis.call('EXISTS', KEYS[3]) == 1 then return { 0, looks } end

local returned = 0
for _, owner in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if returned >= room then break end
  local held, lease = prefix .. '_celeriac.held.' .. owner, prefix .. '_celeriac.lease.' .. owner
  if tonumber(redis.call('ZSCORE', KEYS[1], owner)) < now then
    local fields = redis.call('HKEYS', held)
    newest_first(fields)
    local bite = {}
    for number = 1, math.min(#fields, room - returned) do bite[number] = fields[number] end
    local done, stuck = give_back(prefix, separator, owner, bite, false, true)
    returned = returned + done
    if done == #fields then
      redis.call('ZREM', KEYS[1], owner)
      redis.call('DEL', lease, prefix .. '_celeriac.fence.' .. owner, prefix .. '_celeriac.settled.' .. owner)
    elseif stuck > 0 then
      -- a key of another type is in the way; look again later
      redis.call('ZADD', KEYS[1], now + dead_ms, owner)
    end
  else
    local lapsed = redis.call('ZRANGEBYSCORE', lease, '-inf', now, 'LIMIT', 0, room - returned)
    if #lapsed > 0 then returned = returned + give_back(prefix, separator, owner, lapsed, true, false) end
  end
end
return { returned, looks }
