-- Every script begins with this.

local function is_error(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- Ends the script with an error. Before Redis 7 an error is a text. Since then only a table keeps
-- the code at its beginning.
local function raise(why)
  if redis.REDIS_VERSION then error({ err = why }) end
  error(why, 0)
end

local function raise_refusal(reply, command, key)
  local why = reply.err
  -- Before 7.2 Redis does not say which command the user may not run.
  if string.find(why, 'The user executing the script', 1, true) or string.find(why, 'ACL failure in script', 1, true)
    or string.find(why, 'NOPERM', 1, true) then
    why = 'NOPERM the Redis user may not run ' .. command .. (key and (' on ' .. key) or '')
  end
  raise(why)
end

-- Runs a command. If Redis refuses it, the script ends with that error.
local function call(...)
  local reply = redis.pcall(...)
  if is_error(reply) then raise_refusal(reply, ...) end
  return reply
end

-- The same for a key that may have a value of another type. Returns nil then, and false if there is
-- no value.
local function lookup(...)
  local reply = redis.pcall(...)
  if not is_error(reply) then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil end
  raise_refusal(reply, ...)
end

