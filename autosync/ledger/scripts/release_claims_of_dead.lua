-- release_claims_of_dead: end the claims of workers that have died. KEYS as in mark_dirty.lua.
-- ARGV: prefix of the names of these owners; "": all owners
-- Returns how many claims there were.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended = 0
for _, key in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  local state = redis.call('HGET', KEYS[2], key)
  local owner = state and string.match(state, '^%d+ %d+ %d+ (%S+)')
  if owner and owner ~= '-' and string.sub(owner, 1, #ARGV[1]) == ARGV[1] then
    redis.call('ZADD', KEYS[4], now, key)
    ended = ended + 1
  end
end
return ended
