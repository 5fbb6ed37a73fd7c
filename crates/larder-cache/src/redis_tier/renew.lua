-- Renews leases. KEYS leases; ARGV[1] time to live in ms, then their tokens.
-- Returns how many of them the caller still has.
local held = 0
for i = 1, #KEYS do
  local lease = lookup('GET', KEYS[i])
  if lease and string.match(lease, '^%d+:(%w+)$') == ARGV[i + 1] then
    call('PEXPIRE', KEYS[i], ARGV[1])
    held = held + 1
  end
end
return held
