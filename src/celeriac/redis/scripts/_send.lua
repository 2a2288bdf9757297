-- Sends, read off KEYS and ARGV from a place on.
-- ARGV: number of lists; per list the number of its messages and the messages, oldest first. KEYS: list, wake.
-- Then the number of delayed messages; per message: when it is due (ms), nonce|step|, queue, the message. KEYS: served
-- (if there are any), then per message: delayed, wake, and the list for when no consumer of ours serves the queue.

-- ms since a queue was last seen served by us, up to which its delayed messages wait where only we look
local SERVED_MS = 60000

local function send(key, argument)
  local lists = tonumber(ARGV[argument])
  argument = argument + 1
  for number = 1, lists > 1 and lists or 0 do
    -- a key of another type is found before anything is written, for there is no way back
    redis.call('LLEN', KEYS[key + 2 * number - 2])
  end
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
