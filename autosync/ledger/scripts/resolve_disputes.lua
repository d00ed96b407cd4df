-- resolve_disputes: store what the file host has found at the paths of disputed keys. KEYS as in mark_dirty.lua.
-- ARGV: for each key: key, its generation when it was read, resolution
--   a hint: what the file host sees; "kept": the target is to be left as it is; "later": the file host cannot say yet.
-- Returns the number (1: the first) of each key that needs a message: its hint has changed, so a worker tries it at once.
-- A resolution has no effect if the key was claimed or marked since: what the file host has seen may be older than that.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {}
for i = 1, #ARGV, 3 do
  local key, resolution = ARGV[i], ARGV[i + 2]
  local state = redis.call('HGET', KEYS[2], key)
  local dispute = redis.call('HGET', KEYS[8], key)
  local generation, attempts, owner, hint
  if state then generation, attempts, owner, hint = string.match(state, '^(%d+) %d+ (%d+) (%S+) (.*)$') end
  if not (state and dispute) then -- it was settled meanwhile
    redis.call('HDEL', KEYS[8], key)
    redis.call('ZREM', KEYS[9], key)
  elseif generation ~= ARGV[i + 1] or owner ~= '-' or resolution == 'later' then
    redis.call('ZADD', KEYS[9], now, key) -- behind the others
  elseif resolution == 'kept' then
    redis.call('HDEL', KEYS[2], key)
    redis.call('ZREM', KEYS[3], key)
    redis.call('ZREM', KEYS[4], key)
    redis.call('HDEL', KEYS[8], key)
    redis.call('ZREM', KEYS[9], key)
  else
    redis.call('ZREM', KEYS[9], key)
    local seen = '^%-?%d+ %d+' -- size and mtime
    if string.match(resolution, seen) == string.match(hint, seen) then
      local tries, confirmed = string.match(dispute, '^(%d+) (%d+)$')
      redis.call('HSET', KEYS[8], key, string.format('%s %s', tries, confirmed == '0' and string.format('%d', now) or confirmed))
    else
      redis.call('HSET', KEYS[2], key, string.format('%d 0 0 - %s', generation + 1, resolution))
      redis.call('HSET', KEYS[8], key, string.format('0 %d', now))
      redis.call('ZREM', KEYS[4], key)
      reply[#reply + 1] = (i + 2) / 3
    end
  end
end
return reply
