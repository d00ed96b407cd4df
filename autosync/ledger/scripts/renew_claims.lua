-- renew_claims: renew claims. KEYS as in mark_dirty.lua.
-- ARGV: owner, lease in ms, key, key, ...
-- Returns the indexes of the keys that this owner has lost.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keys = {}
for i = 3, #ARGV do keys[#keys + 1] = ARGV[i] end
if #keys == 0 then return {} end
local lost, leases = {}, {}
for i, state in ipairs(redis.call('HMGET', KEYS[2], unpack(keys))) do
  if state and string.match(state, '^%d+ %d+ %d+ (%S+)') == ARGV[1] then
    leases[#leases + 1] = now + ARGV[2]
    leases[#leases + 1] = keys[i]
  else
    lost[#lost + 1] = i
  end
end
if #leases > 0 then redis.call('ZADD', KEYS[4], unpack(leases)) end
return lost
