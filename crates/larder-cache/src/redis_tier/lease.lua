-- Takes the lease of one key: the right to load it. Returns the clock of the load as well.
-- KEYS[4] value, KEYS[5] lease. ARGV[3] token, ARGV[4] time to live in ms, ARGV[5] the id of the
-- load whose value the caller has seen (8 bytes or none), ARGV[6] the token of the lease that the
-- caller has waited for (or none), ARGV[7...] the targets that the value depends on.
-- Returns the answer, its value or text, the state of the history, and the clocks of the targets.
-- The answer is one of: 'newer' and a value, 'taken' and a token, 'failed' and why, 'won' and
-- nothing.
-- First a write that changes nothing. A read-only copy that lags behind refuses it, and so cannot
-- vouch for the value of another load.
touch(KEYS[1])
local state = history(false)
local targets = clocks(7)
local value = lookup('GET', KEYS[4])
if value and string.sub(value, 5, 12) ~= ARGV[5] then
  -- Another replica filled the key after the caller looked, and has released its lease since.
  return { 'newer', value, state, targets }
end
local lease = lookup('GET', KEYS[5])
if lease then
  local clock, token = string.match(lease, '^(%d+):(%w+)$')
  if token then
    -- The result of a load that began before the last purge may not be stored: do not wait for it.
    local overtaken = tonumber(clock) < tonumber(state[3])
    for i = 1, #targets do overtaken = overtaken or tonumber(clock) < tonumber(targets[i]) end
    if not overtaken then return { 'taken', token, state, targets } end
  else
    -- The load that had the lease failed. A caller that waited for that load gets the same failure.
    -- One that comes later tries anew.
    local failed, why = string.match(lease, '^!(%w+) (.*)$')
    if failed and failed == ARGV[6] then return { 'failed', why, state, targets } end
  end
end
call('SET', KEYS[5], state[2] .. ':' .. ARGV[3], 'PX', ARGV[4])
return { 'won', '', state, targets }
