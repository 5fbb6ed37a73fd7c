-- Stores what a load brought, unless a later load holds the lease, and gives the lease back.
-- KEYS: value, lease. ARGV: token, envelope, time to live in ms. Returns 1 if it was stored.
local lease = redis.call('GET', KEYS[2])
local holder = lease and string.match(lease, '^%d+:(%w+)$')
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if holder then redis.call('DEL', KEYS[2]) end
return 1
