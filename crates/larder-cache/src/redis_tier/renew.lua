-- Renews leases. KEYS leases; ARGV[1] time to live in ms, then their tokens.
-- Returns the places among KEYS of the leases that are gone: they ran out while the caller could
-- not reach Redis, or Redis lost them.
local gone = {}
for i = 1, #KEYS do
  local lease = lookup('GET', KEYS[i])
  if lease == false then
    gone[#gone + 1] = i
  elseif lease and string.match(lease, '^%d+:(%w+)$') == ARGV[i + 1] then
    call('PEXPIRE', KEYS[i], ARGV[1])
  end
end
return gone
