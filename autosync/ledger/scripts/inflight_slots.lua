-- inflight_slots: limit the transfers that are in flight to a target at once. Each has a slot, for the length of a lease. If no slot is
-- free, processes wait in a queue.
-- KEYS[1] mirror  hash  limits: see rate_limit.lua
-- KEYS[2] places  zset  slot -> ms: end of its lease
-- KEYS[3] queue   zset  process -> us since when it waits
-- KEYS[4] asking  zset  process -> ms of its last call
-- KEYS[5] prefix: with the name of a process, a list that gets an entry when it is the turn of that process
-- ARGV: command; process; lease in ms; slot, slot, ... The commands: "acquire", "release", "renew", "leave_queue", "release_of_dead" (of
--       all processes whose names begin with the text in the place of the process)
-- Returns how many of the slots were acquired, the first ones: fewer if fewer are free, and 0 if the process has to wait.

-- A waiting process calls again within a second. After this time without a call it leaves the queue, in ms.
local GONE = 2500

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local command, process, lease = ARGV[1], ARGV[2], ARGV[3]
local names, leases = {}, {}
for i = 4, #ARGV do
  names[#names + 1] = ARGV[i]
  leases[#leases + 1] = now + lease
  leases[#leases + 1] = ARGV[i]
end
if command == 'renew' then
  redis.call('ZADD', KEYS[2], 'XX', unpack(leases))
  return 0
end
local limits = redis.call('HGET', KEYS[1], 'limits')
local most = tonumber(limits and string.match(limits, '(%S+)$') or 0)
if command == 'release' then redis.call('ZREM', KEYS[2], unpack(names)) end
if command == 'leave_queue' then
  redis.call('ZREM', KEYS[3], process)
  redis.call('ZREM', KEYS[4], process)
end
if command == 'release_of_dead' then
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
local acquired = 0
if command == 'acquire' then
  local first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  if free > 0 and (not first or first == process) then
    acquired = math.min(free, #names)
    redis.call('ZADD', KEYS[2], unpack(leases, 1, 2 * acquired))
    redis.call('ZREM', KEYS[3], process)
    redis.call('ZREM', KEYS[4], process)
    free = free - acquired
  else
    redis.call('ZADD', KEYS[3], 'NX', time[1] * 1000000 + time[2], process)
    redis.call('ZADD', KEYS[4], now, process)
  end
end
local next_one = free > 0 and redis.call('ZRANGE', KEYS[3], 0, 0)[1]
if next_one then
  local wakeup = KEYS[5] .. next_one
  redis.call('DEL', wakeup)
  redis.call('LPUSH', wakeup, '1')
  redis.call('PEXPIRE', wakeup, GONE)
end
return acquired
