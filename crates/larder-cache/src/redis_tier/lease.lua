-- Takes the right to load one key, with the clock that the load is stamped with.
-- KEYS[4] value, KEYS[5] lease. ARGV[3] token, ARGV[4] time to live in ms, ARGV[5] id of the load whose value the caller has seen
-- (8 bytes or none), ARGV[6] token of the lease it has waited for (or none), ARGV[7...] names that the value depends on.
-- Returns what became of it, a text or value, the history's state, the clocks of the names; what became of it is one of:
-- 'newer' and a value, 'held' and a token, 'failed' and why, 'won' and nothing.
-- A write that changes nothing: a read-only copy that lags behind refuses it, and must not vouch for the value of another load.
touch(KEYS[1])
local state = history(false)
local names = clocks(7)
local value = lookup('GET', KEYS[4])
if value and string.sub(value, 5, 12) ~= ARGV[5] then
  -- Another replica filled it after the caller looked, and has released its lease since.
  return { 'newer', value, state, names }
end
local lease = lookup('GET', KEYS[5])
if lease then
  local clock, token = string.match(lease, '^(%d+):(%w+)$')
  if token then
    -- A load that began before the last invalidation brings nothing that may be kept: no reason to wait for it.
    local overtaken = tonumber(clock) < tonumber(state[3])
    for i = 1, #names do overtaken = overtaken or tonumber(clock) < tonumber(names[i]) end
    if not overtaken then return { 'taken', token, state, names } end
  else
    -- The load that held it failed. Who waited for that very load has the same answer; who comes later tries anew.
    local failed, why = string.match(lease, '^!(%w+) (.*)$')
    if failed and failed == ARGV[6] then return { 'failed', why, state, names } end
  end
end
call('SET', KEYS[5], state[2] .. ':' .. ARGV[3], 'PX', ARGV[4])
return { 'won', '', state, names }
