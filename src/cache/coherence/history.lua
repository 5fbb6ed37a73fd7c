-- Every script of the bus begins with this. KEYS[1] state, KEYS[2] names, KEYS[3] log; ARGV[1] the epoch that begins if a new
-- one must, ARGV[2] the channel.

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Lua writes large numbers with an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
end

-- What happened, in the log and on the channel.
local function tell(epoch, clock, before, kind, origin, names, length)
  local message = cjson.encode({ e = epoch, c = text(clock), b = text(before), k = kind, o = origin, n = names })
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', length, text(clock) .. '-0', 'm', message)
  redis.call('PUBLISH', ARGV[2], message)
end

-- Begins a new history: everything loaded before it is invalid, and nothing of the old one is compared with it.
local function begin(clock)
  -- First what Redis never refuses for memory; then it refuses nothing more of this script.
  redis.call('DEL', KEYS[2], KEYS[3])
  local first = now()
  if clock and tonumber(clock) >= first then first = tonumber(clock) + 1 end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'run_id', run_id(), 'clock', text(first), 'floor', text(first),
    'soft', '0', 'pruned_to', '0', 'begun', text(first))
  -- The sentinel: an eviction that takes the names takes it, too.
  redis.call('ZADD', KEYS[2], '+inf', 'e:' .. ARGV[1])
  tell(ARGV[1], first, 0, 'e', '', { '*' }, '1000')
  return { ARGV[1], text(first), text(first), '0', '0', text(first) }
end

-- Epoch, clock, floor, soft floor, pruned_to and begin of the history in force. State, names and log must be there together: Redis may
-- have evicted one of them.
local function history(compare_run)
  local state = redis.call('HMGET', KEYS[1], 'epoch', 'clock', 'floor', 'soft', 'pruned_to', 'begun', 'run_id')
  local whole = state[1] and state[2] and state[3] and state[4] and state[5] and state[6]
    and redis.call('ZSCORE', KEYS[2], 'e:' .. state[1]) and redis.call('EXISTS', KEYS[3]) == 1
  if whole and not (compare_run and state[7] ~= run_id()) then
    return { state[1], state[2], state[3], state[4], state[5], state[6] }
  end
  return begin(state[2])
end

-- The clocks of the last hard and the last soft invalidation of each of these names.
local function clocks(from)
  local found = {}
  for i = from, #ARGV do
    found[#found + 1] = redis.call('ZSCORE', KEYS[2], 'h:' .. ARGV[i]) or '0'
    found[#found + 1] = redis.call('ZSCORE', KEYS[2], 's:' .. ARGV[i]) or '0'
  end
  return found
end

