-- Checks a replica in. If it wants to, books one call on every rate of an upstream, or on none.
--
-- KEYS: 1. A sorted set of bookings and replicas. A booking's score is its time. A replica's score
--          is minus the time of its last check-in. They share one set, so no booking is lost
--          without the check-ins, and those show the loss.
--       2. A sorted set of replicas that may have bookings to enter. The score is the time until
--          which nobody books for their sake.
-- ARGV: the replica; its last check-in as it knows it (0: never); 'nothing', 'part' or 'last' for
--       the bookings that it enters; the name of the call to book ('': none); the earliest and the
--       latest time for it, from now. Then lists of pairs, each after its length: the rates (count,
--       time); the bookings to enter (name, time from now); the other replicas that it knows (id,
--       check-in).
-- Returns the outcome, a wait, the time, the replicas, and how many places each rate has left in
-- the window that ends now. The outcome is one of
--   'checked_in'  no booking was wanted
--   'booked'      for `wait` from now
--   'full'        no place is free before `wait` from now
--   'awaits'      nobody books for at most `wait`: other replicas may have bookings to enter
--   'lost'        bookings were lost: enter all of them and call again
--
-- All times are in microseconds, by the clock of Redis. No key has a TTL, because Redis may evict
-- keys that have one.

local SECOND = 1000000
-- No booking is this far ahead. One that is was made before a wrong clock was corrected.
local HOUR = 3600 * SECOND
-- A replica checks in twice a second. After SILENT it may be disconnected; after GONE it has ended.
local SILENT, GONE = 2 * SECOND, 10 * SECOND
-- How long nobody books because another replica may have bookings to enter.
local AWAIT = 3 * SECOND

local calls, awaited = KEYS[1], KEYS[2]
local replica, checked_in, upload, call = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
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
local rates, bookings, known = pairs_of_arguments(), pairs_of_arguments(), pairs_of_arguments()

local function text(number)
  return string.format('%.0f', number)
end

-- The last check-in of a replica. 0 if it is not known.
local function last_check_in(id)
  return -tonumber(redis.call('ZSCORE', calls, id) or 0)
end

local time = redis.call('TIME')
local now = time[1] * SECOND + time[2]

if upload == 'nothing' and last_check_in(replica) < checked_in then
  return { 'lost', 0, now, {}, {} }
end
for _, booking in ipairs(bookings) do
  -- Its name makes it count once, however often it is entered.
  redis.call('ZADD', calls, 'GT', text(now + booking[2]), booking[1])
end
if upload == 'part' then
  return { 'checked_in', 0, now, {}, {} }
end
if upload == 'last' then
  -- The other replicas may have lost bookings too: each known one may enter its own first.
  for _, other in ipairs(known) do
    if other[1] ~= replica and last_check_in(other[1]) < math.max(-other[2], now - SILENT) then
      redis.call('ZADD', awaited, 'NX', text(now + AWAIT), other[1])
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
  local left = {}
  for i, rate in ipairs(rates) do
    local booked = redis.call('ZCOUNT', calls, text(math.max(now - rate[2], 1)), '+inf')
    left[i] = math.max(rate[1] - booked, 0)
  end
  return { what, wait, now, others, left }
end

if call == '' then
  return answer('checked_in', 0)
end
local longest_awaited = redis.call('ZRANGE', awaited, -1, -1, 'WITHSCORES')[2]
if longest_awaited then
  return answer('awaits', longest_awaited - now)
end

-- It is there already if an earlier answer did not arrive.
redis.call('ZREM', calls, call)
-- Bookings never go back in time, so only the window that ends with this one can be too full.
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
