-- Giving held messages back to the head of their lists. A message that has come back carries the marks
-- {"x-celeriac-returns":[attempts,deaths],"redelivered":true, at the front of its own bytes: no table beside it can
-- get lost or be left over, and Celery's workers read past it. deaths: how many consumers died holding it.

-- deaths that a message sees before it is blamed: most of those who die hold many that only wait
local BENIGN_DEATHS = 10
local MARK = '^{"x%-celeriac%-returns": ?%[(%d+), ?(%d+)%], ?"redelivered": ?true, ?()'

-- counted: it was started and not ended; died: with all else that its consumer held
local function marked(payload, counted, died)
  local attempts, deaths, rest = string.match(payload, MARK)
  if attempts then
    payload = string.sub(payload, rest)
  elseif string.sub(payload, 1, 2) == '{"' then
    attempts, deaths, payload = 0, 0, string.sub(payload, 2)
  else
    return payload -- no message at all, which whoever reads it will find out
  end
  if counted or (died and tonumber(deaths) >= BENIGN_DEATHS) then attempts = attempts + 1 end
  if counted or died then deaths = deaths + 1 end
  return string.format('{"x-celeriac-returns":[%d,%d],"redelivered":true,', attempts, deaths) .. payload
end

-- claim, index, step and queue of a field
local function read_field(field)
  local claim, index, step, queue = string.match(field, '^(%d+)%.(%d+)%.(%d+)%.(.*)$')
  return tonumber(claim), tonumber(index), step, queue
end

local function list_of(prefix, separator, step, queue)
  return step == '0' and prefix .. queue or prefix .. queue .. separator .. step
end

-- The newest goes first, so that the oldest is in front in the end.
local function newest_first(fields)
  local places = {}
  for _, field in ipairs(fields) do
    local claim, index = read_field(field)
    places[field] = { claim or 0, index or 0 }
  end
  table.sort(fields, function(one, other)
    local a, b = places[one], places[other]
    if a[1] ~= b[1] then return a[1] > b[1] end
    return a[2] > b[2]
  end)
end

-- Returns how many; a list that cannot take its message back leaves it held, and stuck counts them.
local function give_back(prefix, separator, owner, fields, counted, died)
  local held = prefix .. '_celeriac.held.' .. owner
  local lease = prefix .. '_celeriac.lease.' .. owner
  newest_first(fields)
  local done, stuck, queues = 0, 0, {}
  for _, field in ipairs(fields) do
    local payload = redis.call('HGET', held, field)
    local _, _, step, queue = read_field(field)
    if payload and queue then
      local pushed = redis.pcall('RPUSH', list_of(prefix, separator, step, queue), marked(payload, counted, died))
      if type(pushed) == 'table' and pushed.err then
        stuck = stuck + 1
      else
        redis.call('HDEL', held, field)
        redis.call('ZREM', lease, field)
        queues[queue] = true
        done = done + 1
      end
    else
      redis.call('ZREM', lease, field)
    end
  end
  for queue in pairs(queues) do wake(prefix .. '_celeriac.wake.' .. queue) end
  return done, stuck
end
