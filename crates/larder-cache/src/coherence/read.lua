-- A checked read, for a replica that cannot trust its own mirror. KEYS[4] value. ARGV[3...] the
-- targets that the value depends on. Returns the value or false, the state of the history, and the
-- clocks of the targets.
-- First a write that changes nothing. A read-only copy that lags behind refuses it, and so cannot
-- vouch for anything.
touch(KEYS[1])
local state = history(false)
return { lookup('GET', KEYS[4]) or false, state, clocks(3) }
