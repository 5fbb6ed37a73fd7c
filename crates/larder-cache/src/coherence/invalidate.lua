-- One invalidation. ARGV[3] 'h' (hard: never serve again) or 's' (soft: stale now), ARGV[4] origin, ARGV[5] length of the log,
-- ARGV[6...] names; '*' is everything. Returns epoch and clock.
-- First what Redis never refuses for memory; then it refuses nothing more of this script.
touch(KEYS[1])
local state = history(false)
local before = tonumber(state[2])
local clock = now()
if clock <= before then clock = before + 1 end
-- Never acknowledged with a clock that does not tell before from after.
if clock <= before or clock > LAST_CLOCK then raise('ERR the clock of the history does not advance') end
call('HSET', KEYS[1], 'clock', text(clock))
local names = {}
for i = 6, #ARGV do
  names[#names + 1] = ARGV[i]
  if ARGV[i] == '*' then
    call('HSET', KEYS[1], ARGV[3] == 'h' and 'floor' or 'soft', text(clock))
  else
    call('ZADD', KEYS[2], text(clock), ARGV[3] .. ':' .. ARGV[i])
  end
end
tell(state[1], clock, before, ARGV[3], ARGV[4], names, ARGV[5])
return { state[1], text(clock) }
