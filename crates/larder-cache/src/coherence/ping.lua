-- Gives the clock to the caller and publishes it to the caller's own subscriber. KEYS[4] replicas.
-- ARGV[3] private channel, ARGV[4] token, ARGV[5] the replica, ARGV[6] what it says of itself.
-- Returns the state of the history, then the time in microseconds.
-- Begins with a command that Redis never refuses for memory. After that Redis refuses nothing more
-- of this script.
touch(KEYS[4])
local state = history(false)
local time = text(now())
if ARGV[6] ~= '' then call('HSET', KEYS[4], ARGV[5], time .. ' ' .. ARGV[6]) end
call('PUBLISH', ARGV[3], ARGV[4] .. ' ' .. state[1] .. ' ' .. state[2])
state[7] = time
return state
