-- Sends: lists of messages and delayed messages, read off KEYS and ARGV from a place on.
-- ARGV: number of lists; per list the number of its messages, the messages, oldest first (KEYS: list, wake); then
-- the number of delayed messages, for each when it is due (ms), its member, and the list it goes to if nobody of ours
-- serves the queue ("" KEYS: delayed, wake, list), the queue; and before them the key of the served.

-- ms since a queue was last seen served by us, up to which its delayed messages wait where only we look
local SERVED_MS = 60000

local function send(key, argument)
  local lists = tonumber(ARGV[argument])
  argument = argument + 1
  for _ = 1, lists do
    local count = tonumber(ARGV[argument])
    many('LPUSH', KEYS[key], ARGV, argument + 1, argument + count)
    wake(KEYS[key + 1])
    key, argument = key + 2, argument + 1 + count
  end
  local delayed = tonumber(ARGV[argument])
  argument = argument + 1
  if delayed > 0 then
    local served = KEYS[key]
    local now = now_ms()
    key = key + 1
    for _ = 1, delayed do
      local due, nonce, queue, payload = unpack(ARGV, argument, argument + 3)
      local seen = redis.call('ZSCORE', served, queue)
      if seen and tonumber(due) > now and now - seen < SERVED_MS then
        redis.call('ZADD', KEYS[key], due, nonce .. payload)
      else
        -- perhaps it is Celery's worker who comes for it: any worker holds a message till its eta
        redis.call('LPUSH', KEYS[key + 2], payload)
      end
      wake(KEYS[key + 1])
      key, argument = key + 3, argument + 4
    end
  end
  return key, argument
end
