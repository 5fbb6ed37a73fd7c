-- Gives a lease back after a load that failed, and keeps the reason for those who waited for it.
-- Without a reason nothing is kept: the next who asks gets the lease.
-- KEYS: lease. ARGV: token, why, for how many ms the reason is kept.
-- Returns 1 if the caller still had the lease.
local lease = lookup('GET', KEYS[1])
if not lease or string.match(lease, '^%d+:(%w+)$') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then call('DEL', KEYS[1]) return 1 end
call('SET', KEYS[1], '!' .. ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
