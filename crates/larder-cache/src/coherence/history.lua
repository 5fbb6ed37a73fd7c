-- Every script of the bus begins with this. KEYS[1] state, KEYS[2] names, KEYS[3] log; ARGV[1] the epoch that begins if a new
-- one must, ARGV[2] the channel.

-- Lua's numbers are doubles, which are exact up to this one: 2^53 - 1. A clock beyond it would stand still.
local LAST_CLOCK = 9007199254740991

local function now()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Lua writes large numbers with an exponent.
local function text(number)
  return string.format('%.0f', number)
end

-- The number that a field of the state holds; nil if it is no clock after which there is another one.
local function clock_of(field)
  local clock = field and string.match(field, '^%d+$') and tonumber(field)
  return clock and clock < LAST_CLOCK and clock
end

local function run_id()
  return string.match(call('INFO', 'server'), 'run_id:(%w+)')
end

-- A write that changes nothing: a read-only copy refuses it, and one that is full does not, and refuses nothing more of a script
-- that begins with it. What is no hash is no record, and goes.
local function touch(key)
  if lookup('HDEL', key, '-') == nil then call('DEL', key) end
end

-- What happened, in the log and on the channel.
local function tell(epoch, clock, before, kind, origin, names, length)
  local message = cjson.encode({ e = epoch, c = text(clock), b = text(before), k = kind, o = origin, n = names })
  local id = text(clock) .. '-0'
  if is_error(redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', length, id, 'm', message)) then
    -- An id in the log is ahead of the clock. Without a log, whoever missed something reads all names.
    call('DEL', KEYS[3])
    call('XADD', KEYS[3], id, 'm', message)
  end
  call('PUBLISH', ARGV[2], message)
end

-- Begins a new history: everything loaded before it is invalid, and nothing of the old one is compared with it.
local function begin(clock)
  -- First what Redis never refuses for memory; then it refuses nothing more of this script.
  call('DEL', KEYS[2], KEYS[3])
  local first = now()
  local known = clock_of(clock)
  if known and known >= first then first = known + 1 end
  call('DEL', KEYS[1])
  call('HSET', KEYS[1], 'epoch', ARGV[1], 'run_id', run_id(), 'clock', text(first), 'floor', text(first),
    'soft', '0', 'pruned_to', '0', 'begun', text(first))
  -- The sentinel: an eviction that takes the names takes it, too.
  call('ZADD', KEYS[2], '+inf', 'e:' .. ARGV[1])
  tell(ARGV[1], first, 0, 'e', '', { '*' }, '1000')
  return { ARGV[1], text(first), text(first), '0', '0', text(first) }
end

-- Whether these fields are a state: an epoch, a clock, and floors and a begin that are no later than the clock.
local function is_state(fields)
  local clock = clock_of(fields[2])
  if not clock or not fields[1] or #fields[1] ~= 16 or string.find(fields[1], '%X') then return false end
  for i = 3, 6 do
    local field = clock_of(fields[i])
    if not field or field > clock then return false end
  end
  return true
end

-- Epoch, clock, floor, soft floor, pruned_to and begin of the history in force. State, names and log must be there together, and be
-- what they are called: Redis may have evicted one of them, and somebody else may have written there.
local function history(compare_run)
  local fields = lookup('HMGET', KEYS[1], 'epoch', 'clock', 'floor', 'soft', 'pruned_to', 'begun', 'run_id')
  local whole = fields and is_state(fields) and lookup('ZSCORE', KEYS[2], 'e:' .. fields[1])
    and call('EXISTS', KEYS[3]) == 1 and lookup('XRANGE', KEYS[3], '0-1', '0-1')
  if whole and not (compare_run and fields[7] ~= run_id()) then
    return { fields[1], fields[2], fields[3], fields[4], fields[5], fields[6] }
  end
  return begin(fields and fields[2])
end

-- The clocks of the last hard and the last soft invalidation of each of these names.
local function clocks(from)
  local found = {}
  for i = from, #ARGV do
    found[#found + 1] = call('ZSCORE', KEYS[2], 'h:' .. ARGV[i]) or '0'
    found[#found + 1] = call('ZSCORE', KEYS[2], 's:' .. ARGV[i]) or '0'
  end
  return found
end

