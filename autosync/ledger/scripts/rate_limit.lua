-- rate_limit: let the fleet's requests and bytes go to a target no faster than its limits. The generic cell rate algorithm (GCRA; ITU-T
-- I.371, annex A, "virtual scheduling"): a bucket is one number, the theoretical arrival time of what comes next. A reservation moves that
-- time on, and waits until the time that it found. So shares are granted in the order of the calls, and never exceed the limit.
-- KEYS[1] mirror  hash  limits: "requests bandwidth inflight", a second each, 0 is none; may be absent
--                       slow: "rate before at", only after the target has demanded fewer requests: the rate allowed at that time, the
--                       rate before, and the time. The rate grows since; when it limits nothing any more, the field is deleted
-- KEYS[2] pace    hash  requests, bytes: arrival times in us; since, made, rate: how many requests are made a second
-- ARGV: requests made since the last call, requests to reserve, bytes to reserve (less than 0: returned unused),
--       "" or, if the target has demanded fewer requests, the rate of this process lately, in requests a second
-- Returns {limits, requests a second that are allowed or "0", microseconds to wait before what was reserved may be used}.

-- How long unused time can be used afterwards, in us: otherwise each late wake-up would lose a little.
local BURST = 100000
-- Requests are counted over WINDOW; after FORGOTTEN without a request the count begins anew; in us.
local WINDOW, FORGOTTEN = 2000000, 10000000
-- A cut is followed by a pause, and not by another cut before it could have an effect, in us.
local PAUSE, BETWEEN_CUTS = 500000, 1000000
-- The allowed rate never falls below LEAST of the rate before the cut, and reaches it again after SECONDS. The rate before counts as
-- SLOWEST requests a second at least: a target that refuses the first requests does not reveal how many it can bear.
local LEAST, SECONDS, SLOWEST = 1 / 64, 30, 10

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = redis.call('HMGET', KEYS[1], 'limits', 'slow')
local counted = redis.call('HMGET', KEYS[2], 'requests', 'bytes', 'since', 'made', 'rate')
local limits = stored[1] or '0.0 0.0 0'
local most, bandwidth = string.match(limits, '^(%S+) (%S+) ')
most, bandwidth = tonumber(most), tonumber(bandwidth)
local write = {}
local function set(field, format, number)
  write[#write + 1] = field
  write[#write + 1] = string.format(format, number)
end

local since, made, rate = tonumber(counted[3] or 0), tonumber(counted[4] or 0), tonumber(counted[5] or 0)
local count = tonumber(ARGV[1])
if count > 0 then
  if now - since > FORGOTTEN then since, made, rate = now - BETWEEN_CUTS, 0, 0 end
  made = made + count
  if now - since >= WINDOW then
    rate = made * 1000000 / (now - since)
    since, made = now, 0
  end
  set('since', '%.0f', since)
  set('made', '%.0f', made)
  set('rate', '%.3f', rate)
end

local slow, before, at
if stored[2] then
  slow, before, at = string.match(stored[2], '^(%S+) (%S+) (%S+)$')
  slow, before, at = tonumber(slow), tonumber(before), tonumber(at)
  slow = slow + before / SECONDS * (now - at) / 1000000
end
local arrival = tonumber(counted[1] or 0)
if ARGV[4] ~= '' and (not slow or now - at >= BETWEEN_CUTS) then
  local measured = tonumber(ARGV[4])
  if now - since <= FORGOTTEN then
    measured = math.max(measured, rate, made * 1000000 / math.max(now - since, BETWEEN_CUTS))
  end
  if most > 0 then measured = math.min(measured, most) end
  before = math.max(before or SLOWEST, measured)
  slow = math.max(math.min(slow or before, math.max(measured, SLOWEST)) / 2, before * LEAST)
  redis.call('HSET', KEYS[1], 'slow', string.format('%.6f %.6f %.0f', slow, before, now))
  arrival = math.max(arrival, now + PAUSE)
  set('requests', '%.0f', arrival)
elseif slow and slow >= (most > 0 and math.min(most, 2 * before) or 2 * before) then
  slow = nil
  redis.call('HDEL', KEYS[1], 'slow')
end

local allowed = slow and (most > 0 and math.min(most, slow) or slow) or most
local wait = 0
local function reserve(field, arrival, number, a_second)
  if number == 0 or a_second == 0 then return end
  arrival = math.max(arrival, now - BURST)
  if number > 0 then wait = math.max(wait, arrival - now) end
  set(field, '%.0f', arrival + number * 1000000 / a_second)
end
reserve('requests', arrival, tonumber(ARGV[2]), allowed)
reserve('bytes', tonumber(counted[2] or 0), tonumber(ARGV[3]), bandwidth)
if #write > 0 then redis.call('HSET', KEYS[2], unpack(write)) end
return {limits, string.format('%.6f', allowed), math.ceil(wait)}
