-- A read that asks for everything, for a replica that cannot trust its own mirror. KEYS[4] value; ARGV[3...] names that the value
-- depends on. Returns the value or false, then epoch, clock, floor, soft floor, pruned_to, then the clocks of the names.
-- A write that changes nothing: a read-only copy that lags behind refuses it, and must not vouch for anything.
touch(KEYS[1])
local state = history(false)
return { lookup('GET', KEYS[4]) or false, state, clocks(3) }
