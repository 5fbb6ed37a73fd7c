-- A request for one of KEYS numbers behind the path: in turn and made beforehand, so that wrk has
-- nothing left to do for them. With WITHOUT_ORDER, any of the numbers.
local requests, at, keys = {}, 0, tonumber(os.getenv("KEYS"))

if os.getenv("WITHOUT_ORDER") then
  function request()
    return wrk.format("GET", wrk.path .. math.random(keys))
  end
else
  function init()
    for key = 1, keys do
      requests[key] = wrk.format("GET", wrk.path .. key)
    end
  end

  function request()
    at = at % #requests + 1
    return requests[at]
  end
end
