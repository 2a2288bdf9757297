#!lua flags=allow-oom
--@include _common.lua
--@include _due.lua
-- Messages into their lists before their time. KEYS: delayed, list, wake. ARGV: separator. Answers how many; 0: no more.
local errors = {}
local brought = bring_due(KEYS[1], KEYS[2], ARGV[1], '+inf', errors)
if brought > 0 then wake(KEYS[3]) end
if #errors > 0 and brought == 0 then return redis.error_reply(errors[1]) end
return brought
