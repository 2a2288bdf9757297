-- Pieces that several scripts share; put in front of them by scripts.py. No script takes a message out of the one
-- place it stands in before it stands in the other: an error half-way leaves a double behind, never a hole.

-- values that one call takes: unpack() is bounded by Lua's stack
local CHUNK = 2000
-- ms that a token which nobody took may wake somebody in vain
local TOKEN_MS = 2000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- redis.call(command, key, unpack(values, first, last)) in bites; the sum of the answers
local function many(command, key, values, first, last)
  local sum = 0
  while first <= last do
    local stop = math.min(first + CHUNK - 1, last)
    sum = sum + (tonumber(redis.call(command, key, unpack(values, first, stop))) or 0)
    first = stop + 1
  end
  return sum
end

-- Wake one consumer that sleeps on a queue. One token is enough: who takes it and leaves something passes it on. A
-- sorted set, since adding what is there already does nothing: the publisher does the same without a script.
local function wake(key)
  if redis.call('ZADD', key, 0, '') == 1 then redis.call('PEXPIRE', key, TOKEN_MS) end
end
