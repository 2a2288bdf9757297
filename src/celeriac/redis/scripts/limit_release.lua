#!lua flags=allow-oom
-- Give permits back. KEYS: counters. ARGV: number of the key and holder of each.
for position = 1, #ARGV, 2 do
  redis.call('ZREM', KEYS[tonumber(ARGV[position])], ARGV[position + 1])
end
