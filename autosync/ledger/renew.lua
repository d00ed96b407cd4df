-- renew: keep claims alive. KEYS as in mark.lua.
-- ARGV: owner, lease in ms, key, key, ...
-- Returns the indexes of the keys that this owner does not hold any more.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lost = {}
for i = 3, #ARGV do
  local held = redis.call('HGET', KEYS[2], ARGV[i])
  if held and string.match(held, '^%d+ %d+ %d+ (%S+)') == ARGV[1] then
    redis.call('ZADD', KEYS[4], now + ARGV[2], ARGV[i])
  else
    lost[#lost + 1] = i - 2
  end
end
return lost
