-- claim: take keys to work on. KEYS as in mark.lua.
-- ARGV: owner, lease in ms, version of the definition that the worker holds, key, key, ...
-- Returns false if the mirror has another definition by now; else per key "ticket attempts hint", or
-- {"ticket attempts hint", tokens} if uploads of it were left open: whoever began them does not hold it any more; or
-- 0: not dirty, nothing to do; -1: another worker has it, or its next try is not due.
-- The ticket is the generation, which grows with each claim, so that no two claims of a key have the same.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[3] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local any_open = redis.call('EXISTS', KEYS[7]) == 1
local answer = {}
for i = 4, #ARGV do
  local key = ARGV[i]
  local held = redis.call('HGET', KEYS[2], key)
  local due = held and redis.call('ZSCORE', KEYS[4], key)
  if not held then
    answer[i - 3] = 0
  elseif due and tonumber(due) > now then
    answer[i - 3] = -1
  else
    local generation, _, attempts, _, hint = string.match(held, '^(%d+) (%d+) (%d+) (%S+) (.*)$')
    local ticket = string.format('%d', generation + 1)
    redis.call('HSET', KEYS[2], key, string.format('%s %s %s %s %s', ticket, ticket, attempts, ARGV[1], hint))
    redis.call('ZADD', KEYS[4], now + ARGV[2], key)
    local said, open = ticket .. ' ' .. attempts .. ' ' .. hint, any_open and redis.call('HGET', KEYS[7], key)
    answer[i - 3] = open and {said, open} or said
  end
end
return answer
