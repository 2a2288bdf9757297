#!lua flags=allow-oom
-- Turns and permits for a batch of starts; rules/counting.py is the same in Python, and says what it means.
-- KEYS: counters. ARGV: quota, lease µs, then for each start: holder, number of needs, and for each need: number of its
-- key, interval µs, burst, most. Answers two numbers for each start: 0 0 granted; -1 0 not asked; else the need that
-- is not met, from 1, and the µs until a turn, or the number of permits given out so far.
-- A counter of turns is a string, the theoretical arrival time in µs; one of permits a zset, holder → end of its lease,
-- with that number as the score of the empty name.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local quota, lease = tonumber(ARGV[1]), tonumber(ARGV[2])

-- µs; scores below it are no times
local LEAST_TIME = '1000000000000'

local tats, counts, fresh, changed = {}, {}, {}, {}

local function tat_of(index, limit)
  local tat = tats[index]
  if not tat then
    tat = tonumber(redis.call('GET', KEYS[index]) or 0)
    -- further ahead than it can have come by honest means: the clock was set back
    if tat > now + limit then tat = 0 end
    tats[index] = tat
  end
  return tat
end

local function count_of(index)
  local count = counts[index]
  if not count then
    redis.call('ZREMRANGEBYSCORE', KEYS[index], LEAST_TIME, now)
    count = redis.call('ZCOUNT', KEYS[index], LEAST_TIME, '+inf')
    counts[index] = count
  end
  return count
end

local answers = {}
local position = 3
while position <= #ARGV do
  local holder, number = ARGV[position], tonumber(ARGV[position + 1])
  local first = position + 2
  local refused, wait = 0, 0
  if quota <= 0 then
    refused = -1
  else
    for need = 1, number do
      local at = first + 4 * (need - 1)
      local index, interval, burst, most = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
      if most > 0 then
        if count_of(index) >= most and not redis.call('ZSCORE', KEYS[index], holder) then
          refused = need
          wait = tonumber(redis.call('ZSCORE', KEYS[index], '') or 0)
          break
        end
      else
        local ahead = tat_of(index, burst * interval + 1) - (burst - 1) * interval - now
        if ahead > 0.001 then
          refused, wait = need, math.ceil(ahead)
          break
        end
      end
    end
  end
  if refused == 0 then
    quota = quota - 1
    for need = 1, number do
      local at = first + 4 * (need - 1)
      local index, interval, most = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3])
      if most > 0 then
        local new = redis.call('ZADD', KEYS[index], now + lease, holder)
        counts[index] = counts[index] + new
        if new == 1 then redis.call('ZINCRBY', KEYS[index], 1, '') end
        fresh[index] = true
      else
        tats[index] = math.max(tats[index], now) + interval
        changed[index] = true
      end
    end
  end
  answers[#answers + 1] = refused
  answers[#answers + 1] = wait
  position = first + 4 * number
end

for index in pairs(changed) do
  -- when it is over, no counter says the same
  local left = math.ceil((tats[index] - now) / 1000)
  redis.call('SET', KEYS[index], string.format('%.0f', tats[index]), 'PX', math.max(1, left))
end
for index in pairs(fresh) do
  local left = math.ceil(lease / 1000)
  if redis.call('PTTL', KEYS[index]) < left then redis.call('PEXPIRE', KEYS[index], left) end
end
return answers
