-- One request for each of KEYS numbers behind the path, in turn; made beforehand, so that wrk has nothing to do for them.
local requests, at = {}, 0

function init()
  for key = 1, tonumber(os.getenv("KEYS")) do
    requests[key] = wrk.format("GET", wrk.path .. key)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
