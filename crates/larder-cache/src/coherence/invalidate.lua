-- One invalidation. ARGV[3] 'h' (hard purge: never serve again) or 's' (soft purge: stale now),
-- ARGV[4] the replica that sends it, ARGV[5] the length of the log, ARGV[6] how many targets it
-- has, ARGV[7...] these; '*' is everything. After them come the targets that an inserted value
-- depends on, if there is one.
-- Returns the clock, and from before this invalidation the state of the history and the clocks of
-- what the inserted value depends on. One script: nothing comes between those clocks and this one.
-- First a command that Redis never refuses for memory. Then it refuses nothing more of this script.
touch(KEYS[1])
local state = history(false)
local last = 6 + ARGV[6]
local earlier = clocks(last + 1)
local before = tonumber(state[2])
local clock = now()
if clock <= before then clock = before + 1 end
-- An invalidation is never acknowledged with a clock that does not order it.
if clock <= before or clock > LAST_CLOCK then raise('ERR the clock of the history does not advance') end
call('HSET', KEYS[1], 'clock', text(clock))
local targets = {}
for i = 7, last do
  targets[#targets + 1] = ARGV[i]
  if ARGV[i] == '*' then
    call('HSET', KEYS[1], ARGV[3] == 'h' and 'floor' or 'soft', text(clock))
  else
    call('ZADD', KEYS[2], text(clock), ARGV[3] .. ':' .. ARGV[i])
  end
end
announce(state[1], clock, before, ARGV[3], ARGV[4], targets, ARGV[5])
return { text(clock), state, earlier }
