-- Results: records read off KEYS and ARGV from a place on.
-- ARGV: how many; per record its bytes, ms it is kept (0: for ever), and "", or the SHA-1 of a stored value that the
-- caller has read and allows to be replaced. KEYS: per record its key, which is the channel that tells of it too.
-- A stored SUCCESS stays, whoever wrote it; writing the same again changes nothing; only what was stored is published.

-- How a record begins, in every serializer whose first key is the status (YAML sorts its keys; see unsure).
local HEAD = 64
local function status_of(head)
  local status = string.match(head, '^{"status": ?"([^"\\]*)"')
  if status then return status end
  -- msgpack: a map, then two short strings
  local length, start = string.match(head, '^[\128-\143]\166status([\160-\191])()')
  if not length then
    -- pickle, protocol 4 and 5, then 2 and 3; a frame and memo numbers stand between
    local _, at = string.find(head, '\140\6status\148\140', 1, true)
    if not at then
      _, at = string.find(head, 'X\6\0\0\0statusq\1X', 1, true)
      if at and string.sub(head, at + 2, at + 4) ~= '\0\0\0' then at = nil end
      start = at and at + 5
    else
      start = at + 2
    end
    if not at or string.sub(head, 1, 1) ~= '\128' then return nil end
    length = string.byte(head, at + 1)
  else
    length = string.byte(length) - 160
  end
  if start + length - 1 > #head then return nil end
  return string.sub(head, start, start + length - 1)
end

-- Returns the places behind the last key and argument, and the numbers of the records (from 1) that were not stored,
-- since nothing here can read what stands under their keys (compressed, or sorted by YAML).
local function store(key, argument)
  local count, unsure = tonumber(ARGV[argument]), {}
  argument = argument + 1
  for number = 1, count do
    local name, value, kept, judged = KEYS[key], ARGV[argument], ARGV[argument + 1], ARGV[argument + 2]
    key, argument = key + 1, argument + 3
    local stored
    if kept == '0' then
      stored = redis.call('SET', name, value, 'NX')
    else
      stored = redis.call('SET', name, value, 'PX', kept, 'NX')
    end
    if not stored then
      local head = redis.pcall('GETRANGE', name, 0, HEAD - 1)
      -- a key of another type is no result
      local status = type(head) == 'string' and status_of(head)
      if status == nil and judged ~= '' and redis.sha1hex(redis.call('GET', name)) == judged then status = 'judged' end
      if status == nil then
        unsure[#unsure + 1] = number
      elseif status ~= 'SUCCESS' then
        if kept == '0' then
          redis.call('SET', name, value)
        else
          redis.call('SET', name, value, 'PX', kept)
        end
        stored = true
      end
    end
    -- who may not publish has readers that look every second
    if stored then redis.pcall('PUBLISH', name, value) end
  end
  return key, argument, unsure
end
