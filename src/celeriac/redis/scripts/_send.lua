-- Sends, read off KEYS and ARGV from a place on.
-- ARGV: number of lists; per list the number of its messages and the messages, oldest first. KEYS: list, wake.
-- Then the number of delayed messages; per message: when it is due (ms), nonce|step|, the message. KEYS: delayed, wake,
-- the list for when no consumer of ours serves the queue, served.

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
  local now = delayed > 0 and now_ms()
  for _ = 1, delayed do
    local due, nonce, payload = unpack(ARGV, argument, argument + 2)
    local lives = redis.call('ZRANGE', KEYS[key + 3], -1, -1, 'WITHSCORES')[2]
    if lives and tonumber(lives) > now and tonumber(due) > now then
      redis.call('ZADD', KEYS[key], due, nonce .. payload)
    else
      -- perhaps it is Celery's worker who comes for it: any worker holds a message till its eta
      redis.call('LPUSH', KEYS[key + 2], payload)
    end
    wake(KEYS[key + 1])
    key, argument = key + 4, argument + 3
  end
  return key, argument
end
