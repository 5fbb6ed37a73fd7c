-- Forgets targets whose last purge is older than any entry can be, and the oldest if there are too
-- many. ARGV[3] that age in microseconds, ARGV[4] how many are kept. Returns how many it forgot.
local state = history(false)
local gone = 0
local upto, last = tonumber(state[5]), tonumber(state[2])
local function forget(members)
  for i = 1, #members, 2 do
    call('ZREM', KEYS[2], members[i])
    local clock = tonumber(members[i + 1])
    -- A clock that somebody else wrote can be ahead of the history. What is loaded now is still
    -- valid.
    upto = math.max(upto, math.min(clock, last))
    gone = gone + 1
  end
end
forget(call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. text(now() - ARGV[3]), 'WITHSCORES', 'LIMIT', 0, 1000))
local over = call('ZCARD', KEYS[2]) - 1 - ARGV[4]
if over > 0 then forget(call('ZRANGE', KEYS[2], 0, math.min(over, 1000) - 1, 'WITHSCORES')) end
if gone > 0 then call('HSET', KEYS[1], 'pruned_to', text(upto)) end
return gone
