-- Takes the right to load one key, with the clock that the load is stamped with.
-- KEYS: state, value, lease. ARGV: token, time to live in ms, id of the load whose value the caller has seen (8 bytes or none),
-- token of the lease it has waited for (or none).
-- Returns one of: { 'newer', value }, { 'held', token }, { 'failed', why }, { 'won', epoch, clock, time in microseconds }.
local value = redis.call('GET', KEYS[2])
if value and string.sub(value, 5, 12) ~= ARGV[3] then
  -- Another replica filled it after the caller looked, and has released its lease since.
  return { 'newer', value }
end
local lease = redis.call('GET', KEYS[3])
if lease then
  if string.sub(lease, 1, 1) ~= '!' then return { 'held', lease } end
  -- The load that held it failed. Who waited for that very load has the same answer; who comes later tries anew.
  local token, why = string.match(lease, '^!(%w+) (.*)$')
  if token and token == ARGV[4] then return { 'failed', why } end
end
local state = redis.call('HMGET', KEYS[1], 'epoch', 'clock')
if not state[1] or not state[2] then return redis.error_reply('STATE the history is gone') end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
return { 'won', state[1], state[2], string.format('%.0f', time[1] * 1000000 + time[2]) }
