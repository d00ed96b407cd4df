-- done: what became of claimed keys. KEYS as in mark.lua.
-- ARGV: owner, files sent, bytes sent, keys deleted, then per key: key, ticket of its claim, outcome, delay in ms, detail
--   outcome "done": the target is right; "retry": try again after the delay; "failed": detail is its entry in the failed list;
--   "back": untouched, let another have it.
-- Returns per key: false if it is off this owner's hands; its new "ticket attempts hint" if it changed meanwhile, is still claimed,
-- and has to be looked at again; 0 if it is not held by this claim any more: another has it, be it of the same owner, or this is
-- said a second time, since the answer was lost.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) > 0 then redis.call('HINCRBY', KEYS[6], 'files', ARGV[2]) end
if tonumber(ARGV[3]) > 0 then redis.call('HINCRBY', KEYS[6], 'bytes', ARGV[3]) end
if tonumber(ARGV[4]) > 0 then redis.call('HINCRBY', KEYS[6], 'deleted', ARGV[4]) end
local any_failed = redis.call('EXISTS', KEYS[5]) == 1
local answer = {}
for i = 5, #ARGV, 5 do
  local key, ticket, outcome, delay, detail = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local held = redis.call('HGET', KEYS[2], key)
  local generation, claimed, attempts, owner, hint
  if held then generation, claimed, attempts, owner, hint = string.match(held, '^(%d+) (%d+) (%d+) (%S+) (.*)$') end
  local said = false
  if owner ~= ARGV[1] or claimed ~= ticket then
    said = 0
  elseif outcome == 'back' then
    redis.call('HSET', KEYS[2], key, string.format('%s 0 %s - %s', generation, attempts, hint))
    redis.call('ZADD', KEYS[4], now, key)
  elseif outcome == 'retry' then
    if generation ~= claimed then attempts, delay = -1, 0 end -- it is another file by now, and has its own tries
    redis.call('HSET', KEYS[2], key, string.format('%s 0 %d - %s', generation, attempts + 1, hint))
    redis.call('ZADD', KEYS[4], now + delay, key)
  elseif generation ~= claimed then
    redis.call('HSET', KEYS[2], key, string.format('%s %s 0 %s %s', generation, generation, owner, hint))
    said = generation .. ' 0 ' .. hint
  else
    redis.call('HDEL', KEYS[2], key)
    redis.call('ZREM', KEYS[3], key)
    redis.call('ZREM', KEYS[4], key)
    if outcome == 'failed' then
      redis.call('HSET', KEYS[5], key, detail)
      redis.call('HINCRBY', KEYS[6], 'failures', 1)
      any_failed = true
    elseif any_failed then
      redis.call('HDEL', KEYS[5], key)
    end
  end
  answer[i / 5] = said
end
return answer
