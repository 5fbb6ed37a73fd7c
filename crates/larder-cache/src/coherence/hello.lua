-- On every new connection, before anything else: is this the history that it was?
-- ARGV[3] is 'anew' to begin a new one in any case. Returns epoch, clock, floor, soft floor, pruned_to, begin, time in microseconds.
-- A write that changes nothing: a read-only copy that lags behind refuses it, and is no Redis to work with.
touch(KEYS[1])
local state
if ARGV[3] == 'anew' then
  state = begin(call('HGET', KEYS[1], 'clock'))
else
  state = history(true)
end
state[7] = text(now())
return state
