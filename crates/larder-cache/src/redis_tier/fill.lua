-- Stores a value, unless there is one of a higher clock of its history, or one of the history in
-- force while its own is over, or a later load has the lease. Gives the lease back if it is the
-- caller's. An empty envelope replaces what was stored with nothing.
-- KEYS: value, lease. ARGV: token (none: the value comes from no load), envelope, time to live in
-- ms, the beginning of an envelope, with the version, the history and the clock of the value, and
-- the history in force as an envelope has it.
-- Returns 'stored', 'newer' or 'overtaken'.
local lease = lookup('GET', KEYS[2])
local holder = lease and string.match(lease, '^%d+:(%w+)$')
if holder and ARGV[1] ~= '' and holder ~= ARGV[1] then return 'overtaken' end
-- Where the beginning of an envelope has its version, its history and its clock.
local VERSION, HISTORY, CLOCK = { 1, 4 }, { 22, 29 }, { 30, 37 }
local stored = lookup('GET', KEYS[1]) or ''
local function is_same(part)
  return string.sub(stored, part[1], part[2]) == string.sub(ARGV[4], part[1], part[2])
end
-- Lua compares texts by the rules of a language, so the clock is made a number.
local function clock(envelope)
  local number = 0
  for i = CLOCK[2], CLOCK[1], -1 do number = number * 256 + string.byte(envelope, i) end
  return number
end
local answer = 'stored'
local is_newer = is_same(HISTORY) and #stored >= CLOCK[2] and clock(stored) > clock(ARGV[4])
  or not is_same(HISTORY) and string.sub(stored, HISTORY[1], HISTORY[2]) == ARGV[5]
if is_same(VERSION) and is_newer then
  answer = 'newer'
elseif ARGV[2] == '' then
  call('DEL', KEYS[1])
else
  call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
-- Last: a full Redis refuses the value only if nothing was written before.
if holder and ARGV[1] ~= '' then call('DEL', KEYS[2]) end
return answer
