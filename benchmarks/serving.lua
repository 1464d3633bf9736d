-- What wrk asks, and what it counts, for benchmarks/serving.py. Its argument is a file: a key, then
-- a path and a body per line, asked in turn. The last line of the output is a JSON object.

local threads, asked = {}, {}

function setup(thread)
  thread:set("id", #threads)
  table.insert(threads, thread)
end

function init(args)
  statuses, silent, n = {}, 0, id * 7
  local lines = io.lines(args[1])
  wrk.headers["Authorization"] = "Bearer " .. lines()
  wrk.headers["Content-Type"] = "application/json"
  for line in lines do
    local path, body = line:match("^(%S+) (.*)$")
    table.insert(asked, wrk.format("POST", path, nil, body))
  end
end

function request()
  n = n + 1
  return asked[n % #asked + 1]
end

function response(status, headers, body)
  statuses[status] = (statuses[status] or 0) + 1
  local waits = headers["Retry-After"] or headers["retry-after"]
  if (status == 429 or status == 503) and not waits then silent = silent + 1 end
end

function done(summary, latency, requests)
  local counts, told, unsaid = {}, {}, 0
  for _, thread in ipairs(threads) do
    unsaid = unsaid + thread:get("silent")
    for status, count in pairs(thread:get("statuses")) do
      counts[status] = (counts[status] or 0) + count
    end
  end
  for status, count in pairs(counts) do
    table.insert(told, string.format('"%d":%d', status, count))
  end
  local e = summary.errors
  local form = '\nRESULT {"p50":%d,"p90":%d,"p99":%d,"max":%d,"requests":%d,"seconds":%f,'
    .. '"broken":%d,"silent":%d,"statuses":{%s}}'
  print(string.format(form, latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency.max, summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.timeout, unsaid, table.concat(told, ",")))
end
