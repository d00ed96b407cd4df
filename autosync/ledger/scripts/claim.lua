-- claim: take keys to work on. KEYS as in mark.lua.
-- ARGV: owner, lease in ms, version of the definition that the worker holds, key, key, ...
-- Returns false if the mirror has another definition by now; else 1 if transfers are limited in any way (pace.lua) and 0 if not, and
-- per key "ticket attempts hint", or
-- {"ticket attempts hint", tokens} if uploads of it were left open: whoever began them does not hold it any more; or
-- 0: not dirty, nothing to do; -1: another worker has it, or its next try is not due, or the mirror is paused.
-- The ticket is the generation, which grows with each claim, so that no two claims of a key have the same.
local known = redis.call('HMGET', KEYS[1], 'version', 'limits', 'slow', 'paused')
if known[1] ~= ARGV[3] then return false end
local limited = (known[3] or (known[2] and known[2] ~= '0.0 0.0 0')) and 1 or 0
if known[4] then
  local nothing = {limited}
  for i = 4, #ARGV do nothing[i - 2] = -1 end
  return nothing
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keys = {}
for i = 4, #ARGV do keys[#keys + 1] = ARGV[i] end
if #keys == 0 then return {limited} end
local found = redis.call('HMGET', KEYS[2], unpack(keys))
local open = redis.call('EXISTS', KEYS[7]) == 1 and redis.call('HMGET', KEYS[7], unpack(keys)) or {}
local taken, answer, state, leases = {}, {limited}, {}, {}
for i, key in ipairs(keys) do
  local held = found[i]
  local generation, attempts, owner, hint
  if held then generation, attempts, owner, hint = string.match(held, '^(%d+) %d+ (%d+) (%S+) (.*)$') end
  -- One that nobody has and that has not failed waits for nothing.
  local may_wait = held and (owner ~= '-' or attempts ~= '0')
  local due = may_wait and redis.call('ZSCORE', KEYS[4], key)
  if not held then
    answer[i + 1] = 0
  elseif taken[key] or (due and tonumber(due) > now) then
    answer[i + 1] = -1
  else
    taken[key] = true
    local ticket = string.format('%d', generation + 1)
    state[#state + 1] = key
    state[#state + 1] = table.concat({ticket, ticket, attempts, ARGV[1], hint}, ' ')
    leases[#leases + 1] = now + ARGV[2]
    leases[#leases + 1] = key
    local said = table.concat({ticket, attempts, hint}, ' ')
    answer[i + 1] = open[i] and {said, open[i]} or said
  end
end
if #state > 0 then
  redis.call('HSET', KEYS[2], unpack(state))
  redis.call('ZADD', KEYS[4], unpack(leases))
end
return answer
