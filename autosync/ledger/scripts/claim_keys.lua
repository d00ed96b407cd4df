-- claim_keys: claim keys to work on. KEYS as in mark_dirty.lua.
-- ARGV: owner, lease in ms, version of the definition that the worker has, key, key, ...
-- Returns false if the mirror has another definition by now. Otherwise: 1 if transfers are limited in any way (rate_limit.lua), else 0; and
-- for each key:
--   "fencing_token attempts hint": claimed;
--   {"fencing_token attempts hint", tokens, dispute}: claimed; owners that have lost their claim have left multipart uploads with these
--   tokens open ("": none), or the key is disputed: "tries ms", where ms is how long ago the file host confirmed the hint (-1: it has not;
--   "": not disputed);
--   0: not dirty, nothing to do; -1: another worker has claimed it, or its next try is not due, or the mirror is paused.
-- The fencing token is the generation. It grows with each claim, so no two claims of a key have the same token.
local mirror = redis.call('HMGET', KEYS[1], 'version', 'limits', 'slow', 'paused')
if mirror[1] ~= ARGV[3] then return false end
local limited = (mirror[3] or (mirror[2] and mirror[2] ~= '0.0 0.0 0')) and 1 or 0
if mirror[4] then
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
local disputed = redis.call('EXISTS', KEYS[8]) == 1 and redis.call('HMGET', KEYS[8], unpack(keys)) or {}
local claimed, reply, states, leases = {}, {limited}, {}, {}
for i, key in ipairs(keys) do
  local state = found[i]
  local generation, attempts, owner, hint
  if state then generation, attempts, owner, hint = string.match(state, '^(%d+) %d+ (%d+) (%S+) (.*)$') end
  -- Only a claimed key, or one that has failed or is disputed, can be in `due`.
  local may_wait = state and (owner ~= '-' or attempts ~= '0' or disputed[i])
  local due = may_wait and redis.call('ZSCORE', KEYS[4], key)
  if not state then
    reply[i + 1] = 0
  elseif claimed[key] or (due and tonumber(due) > now) then
    reply[i + 1] = -1
  else
    claimed[key] = true
    local fencing_token = string.format('%d', generation + 1)
    states[#states + 1] = key
    states[#states + 1] = table.concat({fencing_token, fencing_token, attempts, ARGV[1], hint}, ' ')
    leases[#leases + 1] = now + ARGV[2]
    leases[#leases + 1] = key
    local claim = table.concat({fencing_token, attempts, hint}, ' ')
    local dispute = ''
    if disputed[i] then
      local tries, confirmed = string.match(disputed[i], '^(%d+) (%d+)$')
      dispute = string.format('%s %d', tries, confirmed == '0' and -1 or now - confirmed)
    end
    reply[i + 1] = (open[i] or disputed[i]) and {claim, open[i] or '', dispute} or claim
  end
end
if #states > 0 then
  redis.call('HSET', KEYS[2], unpack(states))
  redis.call('ZADD', KEYS[4], unpack(leases))
end
return reply
