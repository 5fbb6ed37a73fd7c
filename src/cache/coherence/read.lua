-- A read that asks for everything, for a replica that cannot trust its own mirror. KEYS[4] value; ARGV[3...] names that the value
-- depends on. Returns the value or false, then epoch, clock, floor, soft floor, pruned_to, then the clocks of the names.
local state = history(false)
return { redis.call('GET', KEYS[4]), state, clocks(3) }
