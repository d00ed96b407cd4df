-- places: how many transfers are in flight to a target at once. Whoever has one holds a place for as long as a lease; places that are
-- not free yet are waited for in the order of asking.
-- KEYS[1] mirror  hash  limits: see pace.lua
-- KEYS[2] places  zset  place -> ms: end of its lease
-- KEYS[3] queue   zset  process -> us since when it waits
-- KEYS[4] asking  zset  process -> ms when it asked last
-- KEYS[5] with a process behind it: a list that gets an entry when it is that process' turn
-- ARGV: "take", "give", "keep", "leave" (the queue) or "forfeit" (of all processes whose names begin so, which are dead); process; lease in
--       ms; place, place, ...
-- Returns how many of the places were taken, the first ones: fewer if there are not so many, and 0 if the process has to wait.

-- Who waits asks again within a second; who has not done so for so long is gone, in ms.
local GONE = 2500

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local what, process, lease = ARGV[1], ARGV[2], ARGV[3]
local names, leases = {}, {}
for i = 4, #ARGV do
  names[#names + 1] = ARGV[i]
  leases[#leases + 1] = now + lease
  leases[#leases + 1] = ARGV[i]
end
if what == 'keep' then
  redis.call('ZADD', KEYS[2], 'XX', unpack(leases))
  return 0
end
local limits = redis.call('HGET', KEYS[1], 'limits')
local most = tonumber(limits and string.match(limits, '(%S+)$') or 0)
if what == 'give' then redis.call('ZREM', KEYS[2], unpack(names)) end
if what == 'leave' then
  redis.call('ZREM', KEYS[3], process)
  redis.call('ZREM', KEYS[4], process)
end
if what == 'forfeit' then
  for _, key in ipairs({KEYS[2], KEYS[3], KEYS[4]}) do
    for _, name in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if string.sub(name, 1, #process) == process then redis.call('ZREM', key, name) end
    end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now - GONE)) do
  redis.call('ZREM', KEYS[3], gone)
  redis.call('ZREM', KEYS[4], gone)
end
local free = most > 0 and most - redis.call('ZCARD', KEYS[2]) or math.huge
local taken = 0
if what == 'take' then
  local first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  if free > 0 and (not first or first == process) then
    taken = math.min(free, #names)
    redis.call('ZADD', KEYS[2], unpack(leases, 1, 2 * taken))
    redis.call('ZREM', KEYS[3], process)
    redis.call('ZREM', KEYS[4], process)
    free = free - taken
  else
    redis.call('ZADD', KEYS[3], 'NX', time[1] * 1000000 + time[2], process)
    redis.call('ZADD', KEYS[4], now, process)
  end
end
local next_one = free > 0 and redis.call('ZRANGE', KEYS[3], 0, 0)[1]
if next_one then
  local bell = KEYS[5] .. next_one
  redis.call('DEL', bell)
  redis.call('LPUSH', bell, '1')
  redis.call('PEXPIRE', bell, GONE)
end
return taken
