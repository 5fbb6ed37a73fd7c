-- The clock, to the caller and to its own subscriber. KEYS[4] replicas. ARGV[3] private channel, ARGV[4] token, ARGV[5] the
-- replica, ARGV[6] what it says of itself. Returns epoch, clock, floor, soft floor, pruned_to, begin, time in microseconds.
-- First what Redis never refuses for memory; then it refuses nothing more of this script.
touch(KEYS[4])
local state = history(false)
local time = text(now())
if ARGV[6] ~= '' then call('HSET', KEYS[4], ARGV[5], time .. ' ' .. ARGV[6]) end
call('PUBLISH', ARGV[3], ARGV[4] .. ' ' .. state[1] .. ' ' .. state[2])
state[7] = time
return state
