-- retry_denied: find denied keys that are to be tried again now: keys in the failed list whose files could not be read. KEYS as in
-- mark_dirty.lua, KEYS[10] denied, KEYS[11] their delays.
-- ARGV: limit, key, key, ...
--   With keys: those of them that are denied; their permissions may have changed, so their delays begin anew.
--   Without: those whose next try is due, at most `limit`; their delays double.
-- Returns the keys.

-- The delay before the second try, and the longest delay, in ms. The first try comes at once: only from then on the watcher observes the
-- permissions.
local SECOND, LONGEST = 30000, 3600000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keys = {}
for i = 2, #ARGV do keys[#keys + 1] = ARGV[i] end
local has_changed = #keys > 0
if not has_changed then keys = redis.call('ZRANGEBYSCORE', KEYS[10], '-inf', now, 'LIMIT', 0, ARGV[1]) end
if #keys == 0 then return keys end
local failed = redis.call('HMGET', KEYS[5], unpack(keys))
local states = redis.call('HMGET', KEYS[2], unpack(keys))
local due = redis.call('ZMSCORE', KEYS[10], unpack(keys))
local delays = redis.call('HMGET', KEYS[11], unpack(keys))
local found, next_due, next_delays, others = {}, {}, {}, {}
for i, key in ipairs(keys) do
  if due[i] and failed[i] then
    local delay = SECOND
    if delays[i] and not has_changed then delay = math.min(2 * delays[i], LONGEST) end
    next_due[#next_due + 1] = now + delay
    next_due[#next_due + 1] = key
    next_delays[#next_delays + 1] = key
    next_delays[#next_delays + 1] = delay
    if has_changed or not states[i] then found[#found + 1] = key end -- a dirty one is tried anyway
  elseif due[i] then -- a worker of an older version could read it
    others[#others + 1] = key
  end
end
if #next_due > 0 then
  redis.call('ZADD', KEYS[10], unpack(next_due))
  redis.call('HSET', KEYS[11], unpack(next_delays))
end
if #others > 0 then
  redis.call('ZREM', KEYS[10], unpack(others))
  redis.call('HDEL', KEYS[11], unpack(others))
end
return found
