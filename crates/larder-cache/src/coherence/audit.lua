-- What the audit compares memory hits with. ARGV[3...] targets. Returns the time in microseconds,
-- the clock of the last hard purge of each target, and the state of the history. If the record is
-- not whole, or another server wrote it, there is no state: a server that took the place of another
-- may lack its last purges. Unlike the other scripts it begins no history and makes no key.
-- First a write that changes nothing. A read-only copy that lags behind refuses it, so it never
-- answers.
lookup('HDEL', KEYS[1], '-')
local fields = fields_of_state()
if not is_whole(fields) or fields[7] ~= run_id() then return { text(now()), {}, false } end
local hard = {}
for i = 3, #ARGV do
  hard[#hard + 1] = call('ZSCORE', KEYS[2], 'h:' .. ARGV[i]) or '0'
end
return { text(now()), hard, { fields[1], fields[2], fields[3], fields[4], fields[5], fields[6] } }
