#!lua flags=allow-oom
--@include _common.lua
--@include _give_back.lua
--@include _store.lua
--@include _send.lua
-- Results, sends and settlements, under a number: all of them, once.
-- KEYS: settled; results; sends (see the pieces); per owner: held, lease, per returned one: delayed, wake, per buried
-- one: its list. ARGV: prefix, separator, number; results; sends; number of owners; per owner: its name, number of
-- acknowledged fields, fields, number of returned ones (field, counted, not before this ms or 0: at once, not before
-- so many ms from now, nonce), number of buried ones (field, epitaph, ms it is kept).
-- Answers the numbers of results that cannot be judged here (then only the others are stored, and nothing else is
-- done), and owner, field, owner, field … of what was no longer held.
local prefix, separator = ARGV[1], ARGV[2]
-- told again because the answer was lost on its way
if tonumber(ARGV[3]) <= tonumber(redis.call('GET', KEYS[1]) or 0) then return { {}, {} } end
local key, argument, unsure = store(2, 4)
if #unsure > 0 then return { unsure, {} } end
key, argument = send(key, argument)
local lost = {}
local function lose(owner, field)
  lost[#lost + 1] = owner
  lost[#lost + 1] = field
end

local owners = tonumber(ARGV[argument])
argument = argument + 1
for _ = 1, owners do
  local owner, held, lease = ARGV[argument], KEYS[key], KEYS[key + 1]
  key = key + 2
  local count = tonumber(ARGV[argument + 1])
  argument = argument + 2
  if count > 0 then
    local last = argument + count - 1
    if many('ZREM', lease, ARGV, argument, last) == count then
      many('HDEL', held, ARGV, argument, last)
    else
      for number = argument, last do
        if redis.call('HDEL', held, ARGV[number]) == 0 then lose(owner, ARGV[number]) end
      end
    end
    argument = argument + count
  end

  count = tonumber(ARGV[argument])
  argument = argument + 1
  local woken = {}
  for _ = 1, count do
    local field, counted, until_, away, nonce = unpack(ARGV, argument, argument + 4)
    local delayed, wake_key = KEYS[key], KEYS[key + 1]
    key, argument = key + 2, argument + 5
    local payload = redis.call('HGET', held, field)
    if payload then
      local _, _, step, queue = read_field(field)
      payload = marked(payload, counted == '1', false)
      if until_ == '0' then
        local pushed = redis.pcall('RPUSH', list_of(prefix, separator, step, queue), payload)
        if type(pushed) == 'table' and pushed.err then
          -- a key of another type is in the way: it stays held, and comes back when its lease ends
          payload = nil
        end
      else
        -- who says so may have a clock that is behind this one, and would get it back before it can start it
        redis.call('ZADD', delayed, math.max(tonumber(until_), now_ms() + tonumber(away)), nonce .. '|' .. step .. '|' .. payload)
      end
      if payload then
        redis.call('HDEL', held, field)
        redis.call('ZREM', lease, field)
        woken[wake_key] = true
      end
    else
      lose(owner, field)
    end
  end
  for wake_key in pairs(woken) do wake(wake_key) end

  count = tonumber(ARGV[argument])
  argument = argument + 1
  for _ = 1, count do
    local field, epitaph, kept_ms = unpack(ARGV, argument, argument + 2)
    local list = KEYS[key]
    key, argument = key + 1, argument + 3
    if redis.call('HEXISTS', held, field) == 1 then
      redis.call('LPUSH', list, epitaph)
      if kept_ms ~= '0' then
        -- the whole list goes when nothing was added for that time, and until then its oldest one by one
        redis.call('PEXPIRE', list, kept_ms)
        local oldest = tonumber(string.match(redis.call('LINDEX', list, -1), '"buried_at":([%d.]+)'))
        if oldest and oldest * 1000 + kept_ms < now_ms() then redis.call('RPOP', list) end
      end
      redis.call('HDEL', held, field)
      redis.call('ZREM', lease, field)
    else
      lose(owner, field)
    end
  end
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', 600000)
return { {}, lost }
