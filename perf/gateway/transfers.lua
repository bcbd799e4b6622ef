-- Transfers for wrk, each with an id of its own.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local count = 0
local run = ""

function init(arguments)
  run = arguments[1] or "bench"
end

function request()
  count = count + 1
  return wrk.format(nil, nil, nil, '{"from_account":"bench:world","to_account":"bench:' .. (count % 100)
    .. '","amount":"0.01","currency":"EUR","transaction_id":"' .. run .. "-" .. count .. '"}')
end
