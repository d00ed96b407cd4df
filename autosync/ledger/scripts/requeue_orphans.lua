-- requeue_orphans: find the keys that no worker has claimed and that need a message. KEYS as in mark_dirty.lua.
-- ARGV: limit, age in ms
-- Returns at most `limit` keys: those whose lease has run out or whose next try is due; their claims end. If there are none, and the age is
-- not -1: keys that have been dirty for longer than the age, and are neither claimed nor waiting for a try. Their message must be lost.
if redis.call('HEXISTS', KEYS[1], 'paused') == 1 then return {} end -- a message would have no effect
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, age = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, limit)
for _, key in ipairs(found) do
  redis.call('ZREM', KEYS[4], key)
  local state = redis.call('HGET', KEYS[2], key)
  if state then
    local generation, attempts, hint = string.match(state, '^(%d+) %d+ (%d+) %S+ (.*)$')
    redis.call('HSET', KEYS[2], key, string.format('%s 0 %s - %s', generation, attempts, hint))
  end
end
if #found > 0 or age < 0 or redis.call('ZCARD', KEYS[3]) <= redis.call('ZCARD', KEYS[4]) then return found end
local from = 0
while #found < limit do
  local page = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - age, 'LIMIT', from, 1000)
  for _, key in ipairs(page) do
    if #found < limit and not redis.call('ZSCORE', KEYS[4], key) then found[#found + 1] = key end
  end
  if #page < 1000 then break end
  from = from + 1000
end
return found
