#!lua flags=allow-oom
--@include _common.lua
--@include _alive.lua
--@include _due.lua
-- Take up to max messages, in the order of the lists given; what is due among the delayed comes first into its list.
-- KEYS: owners, held, lease, fence, amnesty, then per queue: delayed, wake; then the lists
-- ARGV: owner, claim, max, lease ms, dead ms, separator, number of queues, their names, per list its place (step.queue)
-- Answers: ms until the next delayed message is due (or -1), errors, then number of a list and messages of it, newest
-- first, over and over.

-- bytes after which a claim ends, and messages that are moved in one go
local MOST_BYTES, MOST_AT_ONCE = 4194304, 250

local owner, claim, room = ARGV[1], ARGV[2], tonumber(ARGV[3])
local separator, queues = ARGV[6], tonumber(ARGV[7])
local now = now_ms()
-- a claim that was given up for lost and comes late after all must not take anything
if tonumber(claim) <= tonumber(redis.call('GET', KEYS[4]) or 0) then return { -1, {} } end
-- who claims lives, and must be listed before it holds anything
report(KEYS[1], KEYS[5], owner, now, tonumber(ARGV[5]), last_end(KEYS[1]))

local first_list = 5 + 2 * queues
local errors = {}
local next_due = -1

local place_of_queue = 7 + queues
local base, wake_of = {}, {}
for number = first_list + 1, #KEYS do
  local step, queue = string.match(ARGV[place_of_queue + number - first_list], '^(%d+)%.(.*)$')
  if step == '0' then base[queue] = KEYS[number] end
end
for number = 1, queues do
  local queue = ARGV[7 + number]
  wake_of[queue] = KEYS[5 + 2 * number]
  bring_due(KEYS[4 + 2 * number], base[queue], separator, now, errors)
end

local answer = { -1, errors }
local lease_ends = now + ARGV[4]
local taken, bytes = 0, 0
for number = first_list + 1, #KEYS do
  local list = KEYS[number]
  local place = ARGV[place_of_queue + number - first_list]
  while room > 0 and bytes < MOST_BYTES do
    local last = redis.pcall('LINDEX', list, -1)
    if type(last) == 'table' then
      errors[#errors + 1] = list .. ': ' .. last.err
      break
    end
    if not last then break end
    -- large messages are taken few at a time: nobody else is served meanwhile
    local bite = math.min(room, MOST_AT_ONCE, math.max(1, math.floor((MOST_BYTES - bytes) / math.max(1, #last))))
    local items = redis.call('LRANGE', list, -bite, -1)
    local count = #items
    local held, leases = {}, {}
    for back = count, 1, -1 do
      taken = taken + 1
      local at = 2 * (count - back)
      local field = claim .. '.' .. taken .. '.' .. place
      bytes = bytes + #items[back]
      held[at + 1], held[at + 2] = field, items[back]
      leases[at + 1], leases[at + 2] = lease_ends, field
    end
    redis.call('HSET', KEYS[2], unpack(held))
    redis.call('ZADD', KEYS[3], unpack(leases))
    redis.call('LTRIM', list, 0, -count - 1)
    room = room - count
    answer[#answer + 1] = number - first_list - 1
    answer[#answer + 1] = items
  end
end

if room > 0 then
  for number = 1, queues do
    local first = redis.pcall('ZRANGE', KEYS[4 + 2 * number], 0, 0, 'WITHSCORES')
    if not first.err and #first > 0 then
      local left = math.max(0, first[2] - now)
      if next_due < 0 or left < next_due then next_due = left end
    end
  end
  answer[1] = next_due
end
if taken > 0 and (room == 0 or bytes >= MOST_BYTES) then
  -- there may be more, for somebody else
  for number = first_list + 1, #KEYS do
    if redis.call('EXISTS', KEYS[number]) == 1 then
      wake(wake_of[string.match(ARGV[place_of_queue + number - first_list], '^%d+%.(.*)$')])
    end
  end
end
return answer
