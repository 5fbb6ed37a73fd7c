-- Books one call on every rate of an upstream, or on none.
--
-- KEYS: a rate's log each: the times of its last `count` bookings in Unix microseconds, oldest first, some yet to come.
-- ARGV: how long from now the call may happen at the earliest, and at the latest; then of each rate its count and its time.
--       All times in microseconds.
-- Returns {1, wait} if it was booked for `wait` from now, {0, wait} if the first free place comes only then.

-- No booking is this far ahead, so one that is was made by a clock that has been put right since.
local HOUR = 3600 * 1000000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at = now + ARGV[1]

for i, key in ipairs(KEYS) do
  local count, per = ARGV[2 * i + 1], tonumber(ARGV[2 * i + 2])
  local last = tonumber(redis.call('LINDEX', key, -1) or 0)
  if last > now + HOUR then
    redis.call('DEL', key)
  else
    -- Bookings never go back in time: then only the window that ends with this one can be too full.
    at = math.max(at, last)
    local counted = redis.call('LINDEX', key, '-' .. count)
    if counted then
      at = math.max(at, tonumber(counted) + per + 1)
    end
  end
end

local wait = at - now
if wait > tonumber(ARGV[2]) then
  return {0, wait}
end
for i, key in ipairs(KEYS) do
  local count, per = ARGV[2 * i + 1], tonumber(ARGV[2 * i + 2])
  redis.call('RPUSH', key, string.format('%.0f', at))
  redis.call('LTRIM', key, '-' .. count, -1)
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((wait + per) / 1000) + 1))
end
return {1, wait}
