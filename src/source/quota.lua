-- A replica checks in and, if it wishes, books one call on every rate of an upstream, or on none.
--
-- KEYS: 1. A sorted set of the calls, each scored with its time, and of the replicas, each scored with minus the time at which
--          it was last heard. One set, so that no call is lost without the replicas too, which is how the loss is noticed.
--       2. A sorted set of the replicas whose calls may be missing here, each with the time until which it is waited for.
-- ARGV: the replica; when it was last heard, as it was told then (0: never); whether it brings 'nothing', 'part' or 'all' of the
--       calls that it booked; the name of the call to book ('': none); how long from now that may happen at the earliest, and
--       at the latest. Then lists of pairs, each after its length: the rates, count and time; what it brings, names and times
--       from now; the others that it was told of, as it was told.
-- Returns what, a wait, the time, the others. What: 'here', if nothing was to be booked; 'booked' for `wait` from now; 'full'
-- until then; 'awaits' others so long, nothing was booked; 'forgotten': Redis has lost calls, bring all and ask again.
--
-- All times are in microseconds, by the clock of Redis. No key has a TTL: what has one may be evicted.

local SECOND = 1000000
-- No booking is this far ahead, so one that is was made by a clock that has been put right since.
local HOUR = 3600 * SECOND
-- A replica checks in twice a second. Silent so long, it may have been cut off; and so long, it is gone.
local SILENT, GONE = 2 * SECOND, 10 * SECOND
-- How long others wait for one that may have calls to bring.
local MAX_STALENESS = 3 * SECOND

local calls, awaited = KEYS[1], KEYS[2]
local replica, told, brings, call = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local earliest, latest = tonumber(ARGV[5]), tonumber(ARGV[6])

local read = 6
local function pairs_of_arguments()
  local list, length = {}, tonumber(ARGV[read + 1])
  for i = 1, length do
    list[i] = { ARGV[read + 2 * i], ARGV[read + 2 * i + 1] }
  end
  read = read + 1 + 2 * length
  return list
end
local rates, brought, known = pairs_of_arguments(), pairs_of_arguments(), pairs_of_arguments()

local function text(number)
  return string.format('%.0f', number)
end

-- When a replica was last heard; 0 if it is not known.
local function heard(id)
  return -tonumber(redis.call('ZSCORE', calls, id) or 0)
end

local time = redis.call('TIME')
local now = time[1] * SECOND + time[2]

if brings == 'nothing' and heard(replica) < told then
  return { 'forgotten', 0, now, {} }
end
for _, booking in ipairs(brought) do
  -- By its name it is counted once, however often it comes.
  redis.call('ZADD', calls, 'GT', text(now + booking[2]), booking[1])
end
if brings == 'part' then
  return { 'here', 0, now, {} }
end
if brings == 'all' then
  -- What this one lost, or could not enter, others may not have entered either: each that was there is to come first.
  for _, other in ipairs(known) do
    if other[1] ~= replica and heard(other[1]) < math.max(-other[2], now - SILENT) then
      redis.call('ZADD', awaited, 'NX', text(now + MAX_STALENESS), other[1])
    end
  end
end

local longest = 0
for _, rate in ipairs(rates) do
  longest = math.max(longest, tonumber(rate[2]))
end
redis.call('ZREMRANGEBYSCORE', calls, '(' .. text(GONE - now), '(' .. text(now - longest))
redis.call('ZREMRANGEBYSCORE', calls, '(' .. text(now + HOUR), '+inf')
redis.call('ZREMRANGEBYSCORE', awaited, '-inf', text(now))
redis.call('ZADD', calls, text(-now), replica)
redis.call('ZREM', awaited, replica)

local function answer(what, wait)
  local others = redis.call('ZRANGEBYSCORE', calls, '-inf', 0, 'WITHSCORES')
  return { what, wait, now, others }
end

if call == '' then
  return answer('here', 0)
end
local longest_awaited = redis.call('ZRANGE', awaited, -1, -1, 'WITHSCORES')[2]
if longest_awaited then
  return answer('awaits', longest_awaited - now)
end

-- It is there if this was asked before and the answer was lost.
redis.call('ZREM', calls, call)
-- Bookings never go back in time: then only the window that ends with this one can be too full.
local at = math.max(now + earliest, tonumber(redis.call('ZRANGE', calls, -1, -1, 'WITHSCORES')[2]))
for _, rate in ipairs(rates) do
  local counted = redis.call('ZRANGE', calls, '-' .. rate[1], '-' .. rate[1], 'WITHSCORES')[2]
  if counted and tonumber(counted) > 0 then
    at = math.max(at, counted + rate[2] + 1)
  end
end
local wait = at - now
if wait > latest then
  return answer('full', wait)
end
redis.call('ZADD', calls, text(at), call)
return answer('booked', wait)
