-- mark_dirty: mark keys as dirty: their objects in the target may be wrong.
--
-- The ledger of one mirror, as all scripts here use it (one hash slot, so one Redis cluster node). Running fleets hold data under these
-- names, so they stay; redis_keys.py says what they mean:
--   KEYS[1] mirror  hash  version, definition, signature, queue (of its tasks), epoch (broker generation), ran_at, cleared (the version,
--                         and when it was last in sync), accepted, acceptance (JSON of the last acceptance or revocation), holding
--                         (withheld deletions), roots and roots_signature (the remembered roots), unsorted, scan_error,
--                         paused (only if it is), limits and slow (rate_limit.lua)
--   KEYS[2] state   hash  key -> "generation claimed attempts owner hint"; only dirty keys are in it
--   KEYS[3] since   zset  key -> ms since when it is dirty; the lowest score is the lag
--   KEYS[4] due     zset  key -> ms: end of the lease of a claimed key, or time of the next try of a failed one;
--                         a key that merely waits in the queue is not in it
--   KEYS[5] failed  hash  key -> JSON with the reason
--   KEYS[6] stats   hash  files, bytes, deleted, failures: counted since the mirror exists; within:MS (keys made right in MS ms
--                         at most, and not in those of a smaller bound) and took (ms, of all of them); watches, unwatched, looks (scans),
--                         unsure_names (files with names that a flush could not find)
--   KEYS[7] uploads hash  key -> tokens of the multipart uploads that are open for it, one a line; only such keys are in it
--   KEYS[8] disputed  hash  key -> "tries confirmed": a worker does not see what the file host saw. How often that was so, and the ms when
--                         the file host confirmed the hint (0: not yet); only such dirty keys are in it
--   KEYS[9] unresolved zset  key -> ms since when the file host is to check the file of a disputed key once more
-- Beside them: recent (list: "ms owner what number key" of the last 10,000 results, the newest first), watcher (holder of the lease),
-- skipped (hash: path -> why it is not sent), asked (list: scans and flush points that operators request), barrier:NAME (when a flush point
-- was reached), unseen (hash: worker -> which file it does not see), denied (zset: failed key whose file may not be read -> ms of its next
-- try) and denied_delays (hash: such a key -> ms of its delay), pending (hash: kind and path -> JSON of what waits for an operator's
-- acceptance), unreadable (hash: worker -> why it cannot read the definition), rights (only permissions.lua uses it), pace
-- (rate_limit.lua), and places, queue, asking and bell:PROCESS (inflight_slots.lua).
-- Times are the server's own. Each script reads and writes all of its keys at once, which costs the server, and its append-only file,
-- half of what one by one would cost.
--
-- ARGV: key, hint, key, hint, ..., and optionally a message, which is put into the list KEYS[10] if one of the keys needs it.
-- Returns {number of dirty keys, index of each key that needs a message}. A key that waits in the queue or is claimed needs none: its
-- generation grows, and its worker reads the file once more.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Generations are fencing tokens too. They begin with the time, in microseconds, so that none comes twice, even if Redis has lost its
-- memory; no key can be marked and claimed so often that its generation overtakes the clock.
local first = string.format('%d 0 0 - ', time[1] * 1000000 + time[2])
local keys = {}
for i = 1, #ARGV - 1, 2 do keys[#keys + 1] = ARGV[i] end
if #keys == 0 then return {redis.call('HLEN', KEYS[2])} end
local found = redis.call('HMGET', KEYS[2], unpack(keys))
local written = {} -- a key may come twice
local states, since, settled, reply = {}, {}, {}, {0}
for i, key in ipairs(keys) do
  local hint, state = ARGV[2 * i], written[key] or found[i]
  if not state then
    state = first .. hint
    since[#since + 1] = now
    since[#since + 1] = key
    reply[#reply + 1] = i
  else
    local generation, claimed, attempts, owner, old_hint = string.match(state, '^(%d+) (%d+) (%d+) (%S+) (.*)$')
    if owner == '-' and redis.call('ZREM', KEYS[4], key) == 1 then
      -- It waited for its next try; the change is a reason to try now.
      attempts = 0
      reply[#reply + 1] = i
    end
    -- The file host has not checked: the old hint stays. But that a file is gone may be true no more.
    if string.sub(hint, 1, 3) == '-2 ' and string.sub(old_hint, 1, 3) ~= '-1 ' then hint = old_hint end
    local seen = '^%-?%d+ %d+' -- size and mtime
    if string.match(hint, seen) ~= string.match(old_hint, seen) then settled[#settled + 1] = key end
    state = string.format('%d %s %s %s %s', generation + 1, claimed, attempts, owner, hint)
  end
  written[key] = state
  states[#states + 1] = key
  states[#states + 1] = state
end
redis.call('HSET', KEYS[2], unpack(states))
if #since > 0 then redis.call('ZADD', KEYS[3], unpack(since)) end
if #settled > 0 and redis.call('EXISTS', KEYS[8]) == 1 then -- the dispute was about what the file host saw before
  redis.call('HDEL', KEYS[8], unpack(settled))
  redis.call('ZREM', KEYS[9], unpack(settled))
end
if KEYS[10] and #reply > 1 then redis.call('LPUSH', KEYS[10], ARGV[#ARGV]) end
reply[1] = redis.call('HLEN', KEYS[2])
return reply
