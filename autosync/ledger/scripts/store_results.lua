-- store_results: store the results of claimed keys. KEYS as in mark_dirty.lua, KEYS[10] recent, KEYS[11] the watcher's lock, KEYS[12]
-- denied, KEYS[13] their delays (retry_denied.lua).
-- ARGV: owner, files sent, bytes sent, keys deleted, then for each key: key, fencing token of its claim, result
--   result "sent BYTES", "deleted" or "equal": the target is right; "retry MS": try again after MS milliseconds; "failed JSON": its
--   entry in the failed list; "denied JSON": the same, since its file may not be read; "back": untouched, another worker may claim it;
--   "disputed": untouched, since the worker does not see what the file host saw. The file host has to check the file, and a worker
--   tries again later.
-- Returns for each key:
--   false: the claim has ended, or the key changed meanwhile and the mirror is paused.
--   "fencing_token attempts hint": the key changed meanwhile. This is a new claim of it; the worker reads the file again.
--   0: the claim was lost before: another owner or a later claim has the key; or the call is repeated, since its first reply was lost.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) > 0 then redis.call('HINCRBY', KEYS[6], 'files', ARGV[2]) end
if tonumber(ARGV[3]) > 0 then redis.call('HINCRBY', KEYS[6], 'bytes', ARGV[3]) end
if tonumber(ARGV[4]) > 0 then redis.call('HINCRBY', KEYS[6], 'deleted', ARGV[4]) end
local keys = {}
for i = 5, #ARGV, 3 do keys[#keys + 1] = ARGV[i] end
if #keys == 0 then return {} end
local found = redis.call('HMGET', KEYS[2], unpack(keys))
local seen, replies, right, ended, recent = {}, {}, {}, {}, {}
for i, key in ipairs(keys) do
  local fencing_token, result = ARGV[3 * i + 3], ARGV[3 * i + 4]
  local state = not seen[key] and found[i] -- a key that comes twice has no claim the second time
  local generation, claimed, attempts, owner, hint
  if state then generation, claimed, attempts, owner, hint = string.match(state, '^(%d+) (%d+) (%d+) (%S+) (.*)$') end
  local reply = false
  if owner ~= ARGV[1] or claimed ~= fencing_token then
    reply = 0
  else
    seen[key] = true
    local what, detail = string.match(result, '^(%a*) ?(.*)$')
    local has_failed = what == 'failed' or what == 'denied'
    if what ~= 'back' and what ~= 'disputed' then
      local number = what == 'sent' and detail or (what == 'retry' or has_failed) and attempts + 1 or 0
      recent[#recent + 1] = table.concat({now, ARGV[1], has_failed and 'failed' or what, number, key}, ' ')
    end
    if what == 'back' then
      redis.call('HSET', KEYS[2], key, string.format('%s 0 %s - %s', generation, attempts, hint))
      redis.call('ZADD', KEYS[4], now, key)
    elseif what == 'retry' then
      if generation ~= claimed then attempts, detail = -1, 0 end -- the file changed: it is tried at once, and its tries begin anew
      redis.call('HSET', KEYS[2], key, string.format('%s 0 %d - %s', generation, attempts + 1, hint))
      redis.call('ZADD', KEYS[4], now + detail, key)
    elseif what == 'disputed' and generation == claimed then
      -- Not a failed try: it never gets into the failed list. The delay doubles up to half a minute, which is also how long it waits where
      -- no watcher runs.
      local tries, confirmed = string.match(redis.call('HGET', KEYS[8], key) or '0 0', '^(%d+) (%d+)$')
      local delay = math.min(250 * 2 ^ math.min(tries, 30), 30000)
      if redis.call('EXISTS', KEYS[11]) == 0 then delay = 30000 end
      redis.call('HSET', KEYS[2], key, string.format('%s 0 %s - %s', generation, attempts, hint))
      redis.call('ZADD', KEYS[4], now + delay, key)
      redis.call('HSET', KEYS[8], key, string.format('%d %s', tries + 1, confirmed))
      redis.call('ZADD', KEYS[9], now, key)
      if tries == '0' then recent[#recent + 1] = table.concat({now, ARGV[1], what, 0, key}, ' ') end
    elseif what == 'disputed' then -- the file host has seen something else since
      redis.call('HSET', KEYS[2], key, string.format('%s 0 0 - %s', generation, hint))
      redis.call('ZADD', KEYS[4], now, key)
    elseif generation ~= claimed and redis.call('HEXISTS', KEYS[1], 'paused') == 1 then
      redis.call('HSET', KEYS[2], key, string.format('%s 0 0 - %s', generation, hint)) -- as if it were not claimed yet
      redis.call('ZADD', KEYS[4], now, key)
    elseif generation ~= claimed then
      redis.call('HSET', KEYS[2], key, string.format('%s %s 0 %s %s', generation, generation, owner, hint))
      reply = generation .. ' 0 ' .. hint
    else
      if has_failed then
        redis.call('HSET', KEYS[5], key, detail)
        redis.call('HINCRBY', KEYS[6], 'failures', 1)
        if what == 'denied' then
          redis.call('ZADD', KEYS[12], 'NX', now, key)
        else
          redis.call('ZREM', KEYS[12], key)
          redis.call('HDEL', KEYS[13], key)
        end
      else
        right[#right + 1] = key
      end
      ended[#ended + 1] = key
    end
  end
  replies[i] = reply
end
if #right > 0 then
  -- How long each was dirty, counted by the smallest bound (ms) that it does not exceed.
  local counts, sum = {}, 0
  for _, since in ipairs(redis.call('ZMSCORE', KEYS[3], unpack(right))) do
    local dirty_ms = since and now - tonumber(since) or 0
    sum = sum + dirty_ms
    local bound = 'inf'
    for _, one in ipairs({10, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 60000, 600000, 3600000}) do
      if dirty_ms <= one then
        bound = one
        break
      end
    end
    counts[bound] = (counts[bound] or 0) + 1
  end
  for bound, count in pairs(counts) do redis.call('HINCRBY', KEYS[6], 'within:' .. bound, count) end
  redis.call('HINCRBY', KEYS[6], 'took', sum)
end
if #recent > 0 then
  redis.call('LPUSH', KEYS[10], unpack(recent))
  redis.call('LTRIM', KEYS[10], 0, 9999)
end
if #ended > 0 then
  redis.call('HDEL', KEYS[2], unpack(ended))
  redis.call('ZREM', KEYS[3], unpack(ended))
  redis.call('ZREM', KEYS[4], unpack(ended))
  if redis.call('EXISTS', KEYS[8]) == 1 then
    redis.call('HDEL', KEYS[8], unpack(ended))
    redis.call('ZREM', KEYS[9], unpack(ended))
  end
end
if #right > 0 and redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('HDEL', KEYS[5], unpack(right))
  redis.call('ZREM', KEYS[12], unpack(right))
  redis.call('HDEL', KEYS[13], unpack(right))
end
return replies
