#!lua flags=allow-oom
--@include _common.lua
--@include _alive.lua
--@include _give_back.lua
-- What every consumer does every few seconds: report that it lives, and give back what others died with or did not
-- renew. KEYS: owners, amnesty, peek, and served of each queue. ARGV: prefix, separator, dead ms, room, owners that
-- report, the one that receives first. Answers how many messages were given back, and whether the first owner is the
-- one that watches the list for which peek stands.
local prefix, separator, dead_ms, room = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()

local last = last_end(KEYS[1])
for number = 5, #ARGV do report(KEYS[1], KEYS[2], ARGV[number], now, dead_ms, last) end
for number = 4, #KEYS do
  redis.call('ZADD', KEYS[number], now + dead_ms, ARGV[5])
  redis.call('ZREMRANGEBYSCORE', KEYS[number], '-inf', now)
  redis.call('PEXPIRE', KEYS[number], 2 * dead_ms)
end
local looks = 0
local watcher = redis.call('GET', KEYS[3])
if not watcher or watcher == ARGV[5] then
  redis.call('SET', KEYS[3], ARGV[5], 'PX', dead_ms)
  looks = 1
end
if redis.call('EXISTS', KEYS[2]) == 1 then return { 0, looks } end

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
