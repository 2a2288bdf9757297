-- Delayed messages, into the lists they were sent to. A delayed message is nonce|step|bytes.

-- messages that one call brings
local MOST_DUE = 500

-- Those due up to a time (ms); how many. What cannot be done stands in errors.
local function bring_due(delayed, list, separator, until_, errors)
  local due = redis.pcall('ZRANGEBYSCORE', delayed, '-inf', until_, 'LIMIT', 0, MOST_DUE)
  if due.err then
    errors[#errors + 1] = delayed .. ': ' .. due.err
    return 0
  end
  local brought = 0
  for _, member in ipairs(due) do
    local step, start = string.match(member, '^[^|]*|(%d+)|()')
    local target = (step == '0' or not step) and list or list .. separator .. step
    local pushed = redis.pcall('LPUSH', target, start and string.sub(member, start) or member)
    if type(pushed) == 'table' and pushed.err then
      errors[#errors + 1] = target .. ': ' .. pushed.err
    else
      redis.call('ZREM', delayed, member)
      brought = brought + 1
    end
  end
  return brought
end
