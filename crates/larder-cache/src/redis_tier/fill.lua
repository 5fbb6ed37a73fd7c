-- Stores the result of a load and gives the lease back, unless a later load has the lease, or has
-- stored its result.
-- KEYS: value, lease. ARGV: token, envelope, time to live in ms. With a time of zero, what was stored
-- is dropped, and of the envelope only its beginning is given, up to the clock.
-- Returns 1 if it was done.

-- Whether the load of this envelope began later than that of the other: both are of one history, and
-- its clock is higher. See envelope.rs for the places. The bytes of a clock are in reverse.
local function is_later(envelope, other)
  if string.sub(envelope, 1, 4) ~= string.sub(other, 1, 4) or string.sub(envelope, 22, 29) ~= string.sub(other, 22, 29) then
    return false
  end
  for i = 37, 30, -1 do
    local a, b = string.byte(envelope, i) or 0, string.byte(other, i) or 0
    if a ~= b then return a > b end
  end
  return false
end

local lease = lookup('GET', KEYS[2])
local holder = lease and string.match(lease, '^%d+:(%w+)$')
if holder and holder ~= ARGV[1] then return 0 end
local stored = lookup('GET', KEYS[1])
local is_overtaken = stored and is_later(stored, ARGV[2])
-- First the value: after a DEL, a full Redis refuses nothing more of a script.
if not is_overtaken then
  if ARGV[3] == '0' then
    call('DEL', KEYS[1])
  else
    call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  end
end
if holder then call('DEL', KEYS[2]) end
return is_overtaken and 0 or 1
