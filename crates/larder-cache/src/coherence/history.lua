-- Every script that reads or advances the history begins with this.
-- KEYS[1] state, KEYS[2] names (the targets with their clocks), KEYS[3] log.
-- ARGV[1] the id of a new history, in case one must begin, ARGV[2] the channel.
--
-- Field names and message letters are shared with other versions during a rolling upgrade, so they
-- keep their first names: epoch is the id of the history, floor and soft are its hard and soft
-- watermark, begun is its first clock.

-- Lua's numbers are doubles, which are exact up to this one, 2^53 - 1. A clock beyond it would not
-- advance.
local LAST_CLOCK = 9007199254740991

local function now()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Lua writes large numbers with an exponent.
local function text(number)
  return string.format('%.0f', number)
end

-- The clock in a field of the state. nil if it is not a clock, or the last one.
local function clock_of(field)
  local clock = field and string.match(field, '^%d+$') and tonumber(field)
  return clock and clock < LAST_CLOCK and clock
end

local function run_id()
  return string.match(call('INFO', 'server'), 'run_id:(%w+)')
end

-- A write that changes nothing. A read-only copy refuses it. A full Redis does not, and then
-- refuses nothing more of the script. A key that is not a hash is not a state and is deleted.
local function touch(key)
  if lookup('HDEL', key, '-') == nil then call('DEL', key) end
end

-- Writes a message into the log and onto the channel.
local function announce(id, clock, before, purge, origin, targets, length)
  local message = cjson.encode({ e = id, c = text(clock), b = text(before), k = purge, o = origin, n = targets })
  local entry = text(clock) .. '-0'
  if is_error(redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', length, entry, 'm', message)) then
    -- An entry of the log is ahead of the clock. A replica that misses a message, and finds no log,
    -- reads all targets.
    call('DEL', KEYS[3])
    call('XADD', KEYS[3], entry, 'm', message)
  end
  call('PUBLISH', ARGV[2], message)
end

-- Begins a new history after the clock of the old one, if that is known. Everything loaded before
-- it is invalid, and no clock of the old history is compared with it.
local function begin(clock)
  -- Redis never refuses DEL for memory. After that it refuses nothing more of this script.
  call('DEL', KEYS[2], KEYS[3])
  local first = now()
  local known = clock_of(clock)
  if known and known >= first then first = known + 1 end
  call('DEL', KEYS[1])
  call('HSET', KEYS[1], 'epoch', ARGV[1], 'run_id', run_id(), 'clock', text(first), 'floor', text(first),
    'soft', '0', 'pruned_to', '0', 'begun', text(first))
  -- The sentinel: an eviction of the names evicts it, too.
  call('ZADD', KEYS[2], '+inf', 'e:' .. ARGV[1])
  announce(ARGV[1], first, 0, 'e', '', { '*' }, '1000')
  return { ARGV[1], text(first), text(first), '0', '0', text(first) }
end

-- Whether these fields are a state: an id, a clock, and watermarks and a first clock that are not
-- later than the clock.
local function is_state(fields)
  local clock = clock_of(fields[2])
  if not clock or not fields[1] or #fields[1] ~= 16 or string.find(fields[1], '%X') then return false end
  for i = 3, 6 do
    local field = clock_of(fields[i])
    if not field or field > clock then return false end
  end
  return true
end

-- Whether state, names and log are all there, agree and have the right type. Redis may have evicted
-- one of them, and somebody else may have written to them.
local function is_whole(fields)
  return fields and is_state(fields) and lookup('ZSCORE', KEYS[2], 'e:' .. fields[1])
    and call('EXISTS', KEYS[3]) == 1 and lookup('XRANGE', KEYS[3], '0-1', '0-1')
end

local function fields_of_state()
  return lookup('HMGET', KEYS[1], 'epoch', 'clock', 'floor', 'soft', 'pruned_to', 'begun', 'run_id')
end

-- The state of the history in force: id, clock, hard watermark, soft watermark, pruned_to, first
-- clock. If the record is not whole, a new history begins.
local function history(compare_run)
  local fields = fields_of_state()
  if is_whole(fields) and not (compare_run and fields[7] ~= run_id()) then
    return { fields[1], fields[2], fields[3], fields[4], fields[5], fields[6] }
  end
  return begin(fields and fields[2])
end

-- The clocks of the last hard and the last soft purge of each target in ARGV from this index on.
local function clocks(from)
  local found = {}
  for i = from, #ARGV do
    found[#found + 1] = call('ZSCORE', KEYS[2], 'h:' .. ARGV[i]) or '0'
    found[#found + 1] = call('ZSCORE', KEYS[2], 's:' .. ARGV[i]) or '0'
  end
  return found
end

