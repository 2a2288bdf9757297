#!lua
--@include _common.lua
--@include _send.lua
-- Publish a batch. KEYS and ARGV: as _send.lua reads them.
send(1, 1)
return 1
