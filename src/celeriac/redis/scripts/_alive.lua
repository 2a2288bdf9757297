-- Consumers report that they live.

-- When the last of all consumers will count as dead (ms), as far as they have reported.
local function last_end(owners)
  return tonumber(redis.call('ZRANGE', owners, -1, -1, 'WITHSCORES')[2]) or 0
end

-- If who reports seems dead and so did everybody else, it was the server that was away: it restarted, or hung, or a
-- replica took over. Then all get the time to come back. last: what last_end() said before anybody reported.
local function report(owners, amnesty, owner, now, dead_ms, last)
  local ends = redis.call('ZSCORE', owners, owner)
  if ends and tonumber(ends) < now and last < now then redis.call('SET', amnesty, '1', 'PX', dead_ms) end
  redis.call('ZADD', owners, now + dead_ms, owner)
end
