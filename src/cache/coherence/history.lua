-- KEYS[1] the state hash; ARGV[1] the epoch that begins here if a new one must.
-- Returns { epoch, clock, time in microseconds }.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('HMGET', KEYS[1], 'epoch', 'run_id', 'clock')
if state[1] and state[2] == run_id and state[3] then
  return { state[1], state[3], string.format('%.0f', now) }
end
-- Another run, or nothing: what was loaded before belongs to a history that this Redis may not remember as it ended.
local clock = now
if state[3] and tonumber(state[3]) >= clock then clock = tonumber(state[3]) + 1 end
local text = string.format('%.0f', clock)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'run_id', run_id, 'clock', text, 'floor', text, 'pruned_to', '0')
return { ARGV[1], text, string.format('%.0f', now) }
