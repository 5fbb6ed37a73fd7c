-- Stores the result of a load and gives the lease back, unless a later load has the lease. An empty
-- envelope replaces what was stored with nothing.
-- KEYS: value, lease. ARGV: token, envelope, time to live in ms. Returns 1 if it was done.
local lease = lookup('GET', KEYS[2])
local holder = lease and string.match(lease, '^%d+:(%w+)$')
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  call('DEL', KEYS[1])
else
  call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
if holder then call('DEL', KEYS[2]) end
return 1
