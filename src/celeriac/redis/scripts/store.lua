--@include _store.lua
-- Write a batch of results. KEYS and ARGV: as _store.lua reads them. Answers the numbers of those that were not stored.
local _, _, unsure = store(1, 1)
return unsure
